"""Releases of this format and of the one before it, in both directions.

`tests/formats/release-1` was made by the version before, and holds what that version read releases with: its schema and
its module, as they were. An upgrade of the hosts one by one, before or after that of the machine that publishes, is
then what is tried here.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest

from tidegate_agents import bundles
from tidegate_agents.bundles import Identity, read_current
from tidegate_agents.client.agent import read_bundle
from tidegate_agents.gateway.desired import read_bundle as read_gateway_bundle
from tidegate_schema import jsonfile, keyset, release
from tidegate_schema.keyset import KeySet
from tidegate_schema.release import ReleaseError
from tidegate_schema.signatures import generate_key, load_public_key, load_signer
from tidegate_schema.validation import SchemaProblem
from unit.agents.kit import NOW, link

BEFORE = Path(__file__).parents[2] / "formats" / "release-1"
TRUSTED = (load_public_key((BEFORE / "signing.pub").read_bytes()),)
HOSTS = (
    (Identity("example", "client", "alice-laptop", TRUSTED), {"wg0.conf"}, read_bundle),
    (Identity("example", "gateway", "fra1", TRUSTED), {"peers.json", "policy.json"}, read_gateway_bundle),
)


@pytest.fixture(scope="module")
def old() -> ModuleType:
    """Return the module by which the version before read releases, with the schema that it had."""
    spec = importlib.util.spec_from_file_location("release_1", BEFORE / "reader.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    schema = json.loads((BEFORE / "release.schema.json").read_text())

    def errors(kind: str, document: Any) -> list[SchemaProblem]:
        assert kind == "release"
        found = jsonschema.Draft202012Validator(schema).iter_errors(document)
        return [SchemaProblem((), "", error.message, None, None) for error in found]

    module.validation = type("validation", (), {"errors": staticmethod(errors)})  # type: ignore[attr-defined]
    return module


def offered(place: Path, identity: Identity) -> Path:
    directory = place / identity.kind / identity.host
    shutil.copytree(BEFORE / identity.kind / identity.host, directory)
    (folder,) = (directory / "releases").iterdir()
    link(directory, f"releases/{folder.name}")
    return directory


@pytest.mark.parametrize(("identity", "files", "read"), HOSTS, ids=["client", "gateway"])
def test_a_release_of_the_version_before_is_taken_up(
    tmp_path: Path, identity: Identity, files: set[str], read: Callable[[bundles.Accepted], object]
) -> None:
    accepted = read_current(offered(tmp_path, identity), identity, 7, NOW)
    assert (accepted.release.format, accepted.release.serial, set(accepted.files)) == (1, 7, files)
    assert accepted.release.key_set == 0
    assert read(accepted)


def test_not_one_byte_of_it_is_written_differently_today() -> None:
    for file in BEFORE.rglob("release.json"):
        data = file.read_bytes()
        assert release.open_envelope(data, TRUSTED).payload() == _payload(data)


def _payload(envelope: bytes) -> bytes:
    import base64

    return base64.b64decode(json.loads(envelope)["payload"])


def test_the_version_before_still_reads_what_it_wrote(old: ModuleType) -> None:
    for file in BEFORE.rglob("release.json"):
        assert old.open_envelope(file.read_bytes(), TRUSTED).serial == 7


PRIVATE, PUBLIC = generate_key()
SIGNER, KEY = load_signer(PRIVATE), load_public_key(PUBLIC)
OTHER = load_signer(generate_key()[0])
STATEMENT = release.Release(
    "example", "gateway", "fra1", 8, NOW, "x", {"peers.json": release.FileEntry.of(b"x")}, 3
)


@pytest.mark.parametrize("signers", [[SIGNER], [OTHER, SIGNER]], ids=["one", "two"])
def test_what_is_published_for_the_version_before_is_read_by_it(old: ModuleType, signers: list[Any]) -> None:
    data = release.sign(replace(STATEMENT, format=1), signers)
    found = old.open_envelope(data, [KEY])
    for name in ("fleet", "kind", "host", "serial", "not_after", "source"):
        assert getattr(found, name) == getattr(STATEMENT, name)
    assert found.payload() == _payload(data)  # byte for byte what it would have signed
    assert release.open_envelope(data, [KEY]) == replace(STATEMENT, format=1, key_set=0)


def test_the_version_before_refuses_this_one_s_format_by_name(old: ModuleType) -> None:
    with pytest.raises(ValueError, match="unknown-format: format 2, this host reads 1"):
        old.open_envelope(release.sign(STATEMENT, SIGNER), [KEY])


@pytest.mark.parametrize("number", [0, 3, 1000, "2", None])
def test_this_one_refuses_the_next_one_s_by_name(number: object) -> None:
    document = json.loads(STATEMENT.payload()) | {"format": number}
    from tidegate_schema.signatures import canonical, seal

    data = canonical(seal(jsonfile.canonical(document), release.PAYLOAD_TYPE, [SIGNER]))
    with pytest.raises(ReleaseError, match="this host reads 1 and 2") as caught:
        release.open_envelope(data, [KEY])
    assert caught.value.name == "unknown-format"


def test_an_upgraded_host_goes_on_from_its_old_release_to_the_next(tmp_path: Path) -> None:
    """The host is upgraded first, then what publishes; the keys change on the way."""
    identity = HOSTS[0][0]
    directory = offered(tmp_path, identity)
    accepted = read_current(directory, identity, 0, NOW)
    (folder,) = (directory / "releases").iterdir()
    ours = KeySet("example", 1, 1, (PUBLIC.decode(),))
    (folder / "keys.json").write_bytes(keyset.write([keyset.sign(ours, [SIGNER])]))
    renewed = replace(accepted.release, serial=8, key_set=1, format=2)
    (folder / "release.json").write_bytes(release.sign(renewed, SIGNER))
    given = KeySet("example", 0, 1, (PUBLIC.decode(),))
    trusting = identity.trusting(bundles.read_keys(directory, given))
    assert read_current(directory, trusting, accepted.release.serial, NOW).release == renewed
