"""What the control plane must never distribute or know; each test fails when its rule is taken out."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

import compilerkit
from compilerkit import client, codes, gateway, inventory, policy
from tidegate_compiler import render
from tidegate_compiler.check.structure import RESERVED
from tidegate_compiler.pipeline import Compiled, compile_inventory, validate_files
from tidegate_schema import validation, wgquick

INVENTORY_KINDS = ["overlay", "gateways", "clients", "groups", "resources", "policies", "tests"]
LOCAL = ["authz_mode", "logging_enabled"]
VALUES = {
    "overlay": compilerkit.OVERLAY,
    "gateways": gateway("gw"),
    "clients": client("alice", 11) | client("bob", 12),
    "groups": {"g": {"members": ["alice"]}},
    "resources": {"r": {"addresses": ["10.20.0.1/32"], "ports": ["any"]}},
    "policies": {"p": policy()},
    "tests": [{"from": "client:alice", "to": "10.20.0.1", "port": "tcp/1", "expect": "allow"}],
}


def bundles() -> dict[str, bytes]:
    result = compile_inventory(compilerkit.ROOT / "inventory")
    assert isinstance(result, Compiled)
    return dict(result.files)


def names(schema: Any) -> set[str]:
    """Return every property name anywhere in a schema."""
    if isinstance(schema, dict):
        own = set(schema.get("properties", {}))
        return own.union(*(names(value) for value in schema.values()), set())
    return set().union(*(names(value) for value in schema)) if isinstance(schema, list) else set()


@pytest.mark.parametrize("kind", [*INVENTORY_KINDS, "peers", "policy", "release"])
def test_no_schema_of_inventory_or_bundle_has_a_local_setting_or_a_private_key(kind: str) -> None:
    assert names(validation.schema(kind)).isdisjoint(RESERVED)
    assert not re.search("authz|logging|private", json.dumps(validation.schema(kind)))


@pytest.mark.parametrize(
    "field", ["authz_mode", "logging_enabled", "private_key", "PrivateKey", "private-key"]
)
@pytest.mark.parametrize("kind", INVENTORY_KINDS)
def test_a_file_that_carries_a_reserved_field_is_refused_by_name(kind: str, field: str) -> None:
    value: Any = json.loads(json.dumps(VALUES[kind]))
    holder = value[0] if kind == "tests" else next(iter(value.values()))
    holder[field] = "x"
    diagnostics = validate_files(inventory(**VALUES | {kind: value})).diagnostics
    assert [(d.code, field in d.message) for d in diagnostics] == [("TG013", True)]


@pytest.mark.parametrize("field", LOCAL)
def test_a_reserved_field_at_the_top_of_a_file_is_refused_by_name(field: str) -> None:
    assert codes(inventory(policies={field: {}})).count("TG013") == 1
    assert "TG013" in codes(inventory(overlay=compilerkit.OVERLAY | {field: "observe"}))


def test_a_private_key_that_was_refused_is_not_repeated() -> None:
    secret = compilerkit.key("a secret")
    clients = client("alice", 11)
    clients["alice"]["private_key"] = secret
    assert all(secret not in d.message for d in validate_files(inventory(clients=clients)).diagnostics)


@pytest.mark.parametrize("mangled", ["{}\n", " {}", "{}=", "PrivateKey = {}"])
def test_a_value_that_may_be_a_private_key_is_not_repeated(mangled: str) -> None:
    secret = compilerkit.key("a secret")
    clients = client("alice", 11)
    clients["alice"]["public_key"] = mangled.format(secret)
    diagnostics = validate_files(inventory(clients=clients)).diagnostics
    assert [d.code for d in diagnostics] == ["TG020"]
    assert secret[8:20] not in diagnostics[0].message


def test_a_client_bundle_holds_only_endpoint_key_allowed_ips_and_own_address() -> None:
    files = {path: data for path, data in bundles().items() if path.startswith("client/")}
    assert {path.rpartition("/")[2] for path in files} == {"wg0.conf"}
    for data in files.values():
        keys = {line.partition(" = ")[0] for line in data.decode().splitlines() if " = " in line}
        assert keys <= {"Address", "PostUp", "PublicKey", "Endpoint", "AllowedIPs"}
        postup = [line for line in data.decode().splitlines() if line.startswith("PostUp")]
        assert postup == [f"PostUp = {wgquick.KEYLESS_POSTUP}"]
        wgquick.parse(data)


def test_a_gateway_bundle_holds_only_client_id_key_allowed_ips_and_policy() -> None:
    files = {path: json.loads(data) for path, data in bundles().items() if path.startswith("gateway/")}
    assert {path.rpartition("/")[2] for path in files} == {"peers.json", "policy.json"}
    for path, document in files.items():
        if path.endswith("peers.json"):
            assert set(document) == {"format", "peers"}
            assert {field for peer in document["peers"] for field in peer} == {
                "client_id",
                "public_key",
                "allowed_ips",
            }
        else:
            assert set(document) == {"format", "rules", "sets", "clients"}
            fields = {field for rule in document["rules"] for field in rule}
            assert fields <= {"policy", "action", "to", "ports", "not_before", "expires"}
        assert validation.errors(path.rpartition("/")[2].removesuffix(".json"), document) == []


def test_no_bundle_names_a_client_a_group_or_a_resource() -> None:
    result = compile_inventory(compilerkit.ROOT / "inventory")
    assert isinstance(result, Compiled)
    told = [*result.inventory.clients, *result.inventory.groups, "prod-db", "fra1", "nyc1"]
    for path, data in result.files.items():
        if path != render.MANIFEST:
            # Policies' names travel with their rules, so that an event can say which one decided.
            text = re.sub(r'"policy":"[^"]*"', "", data.decode())
            assert [name for name in told if name in text] == []


def test_no_bundle_holds_a_private_key() -> None:
    for data in bundles().values():
        assert b"PrivateKey" not in data
        assert b"private_key" not in data


def test_the_compiler_imports_nothing_that_forwards_packets_or_listens() -> None:
    source = (compilerkit.ROOT / "compiler" / "tidegate_compiler").rglob("*.py")
    # sshagent.py asks the ssh-agent of whoever signs, by the socket that SSH_AUTH_SOCK names, and nobody else;
    # targets/nats.py pushes to the server that `publish --to` names. Neither listens.
    text = "\n".join(path.read_text() for path in source if path.name not in ("sshagent.py", "nats.py"))
    text = re.sub(
        r"^from socket import [AFINET6_, inetopn]+$", "", text, flags=re.M
    )  # addresses to text and back
    assert not re.search(
        r"^\s*(import|from) (socket|pyroute2|pytun|tidegate_agents|asyncio|http|httpx)\b", text, re.M
    )


def test_only_the_command_line_reads_the_clock() -> None:
    for path in (compilerkit.ROOT / "compiler" / "tidegate_compiler").rglob("*.py"):
        if path.name in ("progress.py", "lease.py"):  # a stopwatch, which tells no time
            assert set(re.findall(r"\btime\.\w+|\w*time import.*", path.read_text())) == {"time.monotonic"}
        elif path.name == "compilecli.py":
            # Asked once, to tell which files of an output changed too lately for their times to be believed.
            assert re.findall(r"\btime\.\w+|\w*time import.*", path.read_text()) == ["time.time_ns"]
        elif path.name not in ("options.py", "proofcli.py", "publishcli.py"):
            assert not re.search(r"\bimport time\b|\btime\.\w+\(|\.now\(|utcnow|today\(", path.read_text()), (
                path.name
            )
