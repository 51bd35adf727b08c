"""What `tidegate gateway run` would do now: the actions between what should be and what is. Changes nothing.

What the nftables table should look like, the kernel itself says: the ruleset is loaded in a network namespace of its
own, which ends with the program that asks.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tidegate_agents import bundles, host, settings, tools, wireguard
from tidegate_agents.clock import Clock
from tidegate_agents.files import FileRefused, read_bounded
from tidegate_agents.gateway import generation, network, nft, ruleset, traces
from tidegate_agents.gateway.accounting import Accounting
from tidegate_agents.gateway.desired import NOTHING, GatewayBundle, common, read_bundle, without_rights
from tidegate_agents.gateway.device import Device
from tidegate_agents.gateway.tuns import Tuns
from tidegate_agents.offered import in_force
from tidegate_schema import jsonfile

_SECONDS = 60.0
_TABLES_MAX_BYTES = 256 << 20
_LIST = "nft -f - && nft --stateless --terse list ruleset"


class Action(NamedTuple):
    """One step: which part it belongs to, what is done, and to what."""

    part: str
    verb: str
    what: str


@dataclass(frozen=True)
class Wanted:
    """What the gateway should be, and what was found wrong on the way to it."""

    settings: Mapping[str, Any]
    bundle: GatewayBundle
    release: Mapping[str, str | int] | None
    problems: tuple[str, ...]

    @property
    def enforce(self) -> bool:
        """Whether policy decides."""
        return bool(self.settings["authz_mode"] == "enforce")


def wanted(places: host.Places, bundle_directory: Path) -> Wanted:
    """Read settings and releases as a start would, and write nothing. HostError."""
    problems = []
    try:
        chosen = settings.load(places.kind, places.settings)
    except settings.SettingsError as error:
        problems.append(str(error))
        chosen = settings.defaults(places.kind)
    found, problem = in_force(places, bundle_directory, read_bundle, common)
    if problem is not None:
        problems.append(problem)
    if found is None:
        return Wanted(chosen, NOTHING, None, tuple(problems))
    bundle, accepted = found
    now = Clock(host.load_memory(places).time).now()
    if now >= accepted.release.not_after and chosen["on_stale"] == "deny":
        bundle = without_rights(bundle)
    return Wanted(chosen, bundle, bundles.summary(accepted), tuple(problems))


def actions(places: host.Places, want: Wanted) -> Iterator[Action]:
    """Yield the steps from what is to what should be, in the order of a start. HostError."""
    device = Device(places, want.settings)
    device.refuse_foreign()
    yield from _sysctls()
    yield from _rules(places, want)
    yield from _tuns(want)
    yield from _device(places, want)
    yield from _generation(places, want)
    yield from _peers(want)
    yield from _routes(want)


def _sysctls() -> Iterator[Action]:
    for family in sorted(network.Forwarding.off()):
        yield Action("sysctl", "switch on", f"forwarding of {family}")
    accounting = Accounting()
    try:
        accounting.look(None)
    except OSError as error:
        yield Action("sysctl", "cannot tell", str(error))
    for name in accounting.were:
        yield Action("sysctl", "switch on", f"net.netfilter.{name}")


def _rules(places: host.Places, want: Wanted) -> Iterator[Action]:
    forwarding = network.Forwarding()
    forwarding.look(traces.read(places.run).get("forwarding", ()))
    text = ruleset.render(want.settings, enforce=want.enforce, only_ours=forwarding.were_off)
    is_there = nft.own_table(nft.stateless())
    if not is_there:
        yield Action("nft", "load", f"table inet {ruleset.TABLE}")
    elif is_there != nft.own_table(_as_listed(text)):
        yield Action("nft", "replace", f"table inet {ruleset.TABLE}")


def _as_listed(text: str) -> str:
    try:
        done = tools.run("unshare", "--net", "sh", "-c", _LIST, text=text, seconds=_SECONDS)
    except subprocess.TimeoutExpired:
        raise host.HostError(f"nft: no answer within {_SECONDS:.0f} s") from None
    if done.returncode:
        raise host.HostError(
            f"nft refused the ruleset: {(done.stderr.strip() or 'no reason given').splitlines()[0]}"
        )
    return done.stdout


def _tuns(want: Wanted) -> Iterator[Action]:
    gone = Tuns(want.settings).gone()
    for name in gone:
        yield Action("tun", "make", name)
    if gone or not network.is_led(want.settings, enforce=want.enforce):
        chosen = want.settings
        into = f"{chosen['tun']} by table {chosen['table']}"
        yield Action(
            "rule", "lead", f"mark {chosen['mark']:#x} into {into}, priority {chosen['rule_priority']}"
        )


def _device(places: host.Places, want: Wanted) -> Iterator[Action]:
    name, port = want.settings["interface"], want.settings["listen_port"]
    if network.index(name) is None:
        yield Action("device", "make", f"{name}, port {port}")
    elif wireguard.identity(name) != (host.public_key(places), port):
        yield Action("device", "set", f"key and port {port} of {name}")
    if not network.is_up(name):
        yield Action("device", "bring up", name)


def _generation(places: host.Places, want: Wanted) -> Iterator[Action]:
    number = generation.last(places)
    tables = generation.document(want.bundle.tables(number, want.enforce, 0.0))
    try:
        found = jsonfile.parse(read_bounded(generation.file(places, number), _TABLES_MAX_BYTES))
    except (OSError, FileRefused, jsonfile.JsonError):
        found = {}
    compared = ("enforce", "clients", "policy")
    status = host.read_status(places)
    if any(found.get(name) != tables[name] for name in compared) or not (status or {}).get("forwarder"):
        yield Action("forwarder", "start", f"generation {number + 1}, {want.settings['authz_mode']}")


def _peers(want: Wanted) -> Iterator[Action]:
    observed = {}
    if network.index(want.settings["interface"]) is not None:
        shown = wireguard.show(want.settings["interface"])
        observed = {key: peer.config for key, peer in shown.peers.items()}
    change = wireguard.difference(observed, want.bundle.peers)
    for key in change.remove:
        yield Action("peer", "remove", key)
    for key in sorted(change.shrink.keys() | change.grow.keys()):
        addresses = " ".join(sorted(want.bundle.peers[key].allowed_ips))
        yield Action("peer", "change" if key in observed else "add", f"{key} {addresses}")


def _routes(want: Wanted) -> Iterator[Action]:
    name = want.settings["interface"]
    have: Iterable[str] = network.client_routes(name) if network.index(name) is not None else ()
    for prefix in sorted(want.bundle.routes - set(have)):
        yield Action("route", "add", f"{prefix} dev {name}")
    for prefix in sorted(set(have) - want.bundle.routes):
        yield Action("route", "remove", f"{prefix} dev {name}")


def report(places: host.Places, bundle_directory: Path, *, as_json: bool) -> Iterator[str]:
    """Yield the lines that the command prints. HostError."""
    began = time.monotonic()
    want = wanted(places, bundle_directory)
    steps = list(actions(places, want))
    if as_json:
        yield json.dumps(
            {
                "format": 1,
                "release": want.release,
                "problems": list(want.problems),
                "actions": [step._asdict() for step in steps],
            },
            indent=2,
        )
        return
    for problem in want.problems:
        yield f"problem: {problem}"
    yield f"release {want.release['serial']}" if want.release else "no release"
    yield from (f"{step.part:<10} {step.verb} {step.what}" for step in steps)
    yield f"{len(steps)} actions, none taken ({time.monotonic() - began:.1f} s)"
