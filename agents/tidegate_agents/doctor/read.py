"""Ask kernel, tools and files of a host; nothing is changed, and nothing that is missing stops the rest.

What can only be known by doing it (a WireGuard interface, a TUN, the gateway's ruleset) is done in a network namespace
of its own, which ends with the command.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tidegate_agents import bundles, host, offered, settings, tools, wireguard
from tidegate_agents.bundles import Identity
from tidegate_agents.doctor import netlink
from tidegate_agents.doctor.checks import files, kernel
from tidegate_agents.doctor.facts import Chain, Entry, Facts, Link, Route, Space, Tool, Try
from tidegate_agents.gateway import ruleset
from tidegate_schema.release import ReleaseError

_SECONDS = 15.0
_SYSCTLS = Path("/proc/sys/net")
_FIXED_SYSCTLS = (
    *("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/rp_filter"),
    *("netfilter/nf_conntrack_max", "netfilter/nf_conntrack_count"),
)
_VERSION = {
    "ip": "-V",
    "wg-quick": "",
}  # the words that ask for it, where --version does not; wg-quick has none
_STA_UNSYNC, _TIMEX_BYTES, _TIMEX_STATUS = (
    0x40,
    512,
    10,
)  # linux/timex.h: `status` is the tenth int of a 64-bit one
_NO_TOOL = (OSError, subprocess.SubprocessError)


def facts(places: host.Places, bundle_directory: Path) -> Facts:
    """Return what there is to know."""
    chosen, settings_problem = _settings(places)
    status = host.read_status(places)
    links, uplinks = _links(), _uplinks()
    found = Facts(
        places,
        bundle_directory,
        chosen,
        time.time(),
        settings_problem=settings_problem,
        synchronised=_synchronised(),
        agent=status["pid"] if status else None,
        kernel=_kernel(),
        machine=platform.machine(),
        tools={name: _tool(name) for name in (*kernel.TOOLS[places.kind], "wireguard-go")},
        tries=_tries(places.kind, chosen),
        links=links,
        uplinks=uplinks,
        sysctls=_sysctls({*links}),
        sysctls_writable=_writable(_SYSCTLS / "ipv4/ip_forward"),
        entries=_entries(places, bundle_directory, chosen["interface"]),
        space=_space(places, bundle_directory),
        closed_chains=_closed_chains() if places.kind == "gateway" else (),
        legacy_tables=_legacy_tables(),
        udp_ports=_udp_ports(),
        users=_users(chosen),
        libatomic=platform.machine() == "x86_64" or _has_library("libatomic.so.1"),
    )
    return _with_papers(found)


def _settings(places: host.Places) -> tuple[Mapping[str, Any], str | None]:
    try:
        return settings.load(places.kind, places.settings), None
    except settings.SettingsError as error:
        return settings.defaults(places.kind), str(error)


def _with_papers(found: Facts) -> Facts:
    """Add what identity, key, memory and release say."""
    places = found.places
    identity: Identity | None = None
    memory = host.Memory()
    public = ""
    problems: dict[str, Any] = {}
    try:
        identity = host.load_identity(places)
    except host.HostError as error:
        problems["identity_problem"] = str(error)
    try:
        public = host.public_key(places)
    except host.HostError as error:
        problems["key_problem"] = str(error)
    except OSError:
        problems["key_problem"] = f"{places.key}: cannot be looked at without wg"
    try:
        memory = host.load_memory(places)
    except host.HostError as error:
        problems["memory_problem"] = str(error)
    release_problem, not_after = _release(found, identity) if identity else (None, None)
    return replace(
        found,
        **problems,
        remembered=memory.time,
        release_problem=release_problem,
        not_after=not_after,
        interface_is_ours=_is_ours(found, public),
    )


def _release(found: Facts, identity: Identity) -> tuple[str | None, float | None]:
    if bundles.fingerprint(bundles.host_directory(found.bundles, identity)) is None:
        return None, None
    try:
        return None, offered.offered(found.places, found.bundles).release.not_after
    except (ReleaseError, host.HostError) as error:
        return str(error), None


def _is_ours(found: Facts, public: str) -> bool | None:
    if found.interface not in found.links or not public:
        return None
    try:
        key = wireguard.run("show", found.interface, "public-key").strip()
    except host.HostError:
        return False  # no WireGuard interface at all
    except OSError:
        return None
    return key in (public, "(none)")


def _kernel() -> tuple[int, int]:
    numbers = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def _tool(name: str) -> Tool:
    path = shutil.which(name)
    if path is None:
        return Tool(None)
    said = ""
    if word := _VERSION.get(name, "--version"):
        with contextlib.suppress(*_NO_TOOL):
            done = tools.run(path, word, seconds=_SECONDS)
            said = (done.stdout.strip() or done.stderr.strip() or "").partition("\n")[0]
    return Tool(path, _plain(said)[:100])


def _tries(kind: str, chosen: Mapping[str, Any]) -> dict[str, Try]:
    add = ("ip", "link", "add", "dev", "try0", "type")
    tries = {
        "wireguard": _try(*add, "wireguard"),
        "tun": _try("ip", "tuntap", "add", "dev", "try0", "mode", "tun"),
    }
    if kind == "gateway":
        rules = "".join(ruleset.render(chosen, enforce=enforce) for enforce in (False, True))
        tries["ruleset"] = _try("nft", "-f", "-", text=rules)
        try:
            netlink.count_connections()
            tries["conntrack"] = Try(True)
        except OSError as error:
            tries["conntrack"] = Try(False, error.strerror or str(error))
    return tries


def _try(*command: str, text: str | None = None) -> Try:
    if shutil.which(command[0]) is None:
        return Try(None, f"{command[0]} is missing")
    try:
        probe = tools.run("unshare", "--net", "unshare", "--version", seconds=_SECONDS)
        if probe.returncode:
            return Try(None, _last(probe.stderr) or "no network namespace can be made")
        done = tools.run("unshare", "--net", *command, text=text, seconds=_SECONDS)
    except _NO_TOOL as error:
        return Try(None, _last(str(error)))
    return Try(done.returncode == 0, _last(done.stderr) if done.returncode else "")


def _last(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip(" ^~")]
    return _plain(lines[-1] if lines else "")[:200]


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _json(*command: str) -> Any:
    with contextlib.suppress(*_NO_TOOL, ValueError):
        done = tools.run(*command, seconds=_SECONDS)
        if done.returncode == 0:
            return json.loads(done.stdout or "[]")
    return None


def _links() -> dict[str, Link]:
    return {
        one["ifname"]: Link(
            int(one.get("mtu", 0)),
            "UP" in one.get("flags", ()),
            tuple(info["local"] for info in one.get("addr_info", ()) if "local" in info),
        )
        for one in _json("ip", "-json", "address", "show") or ()
        if "ifname" in one
    }


def _uplinks() -> tuple[Route, ...]:
    return tuple(
        Route(family, route["dev"], str(route.get("protocol", "")))
        for family in (4, 6)
        for route in _json("ip", f"-{family}", "-json", "route", "show", "default") or ()
        if "dev" in route
    )


def _sysctls(links: set[str]) -> dict[str, str]:
    paths = [*_FIXED_SYSCTLS]
    paths += [f"ipv4/conf/{link}/rp_filter" for link in links]
    paths += [f"ipv6/conf/{link}/accept_ra" for link in links]
    found = {}
    for path in paths:
        with contextlib.suppress(OSError):
            found[path] = (_SYSCTLS / path).read_text().strip()
    return found


def _writable(path: Path) -> bool:
    return not path.exists() or (not os.statvfs(path).f_flag & os.ST_RDONLY and os.access(path, os.W_OK))


def _entries(places: host.Places, bundle_directory: Path, interface: str) -> dict[Path, Entry | None]:
    paths = [
        *files.watched(bundle_directory, places.etc),
        places.state_directory,
        places.run,
        places.identity,
    ]
    paths += [places.key, places.settings, places.memory, Path(f"/etc/wireguard/{interface}.conf")]
    found: dict[Path, Entry | None] = {}
    for path in paths:
        try:
            info = path.stat()
        except OSError:
            found[path] = None
        else:
            found[path] = Entry(info.st_mode, info.st_uid)
    return found


def _space(places: host.Places, bundle_directory: Path) -> dict[Path, Space]:
    found = {}
    for path in (places.etc, places.state_directory, places.run_directory, bundle_directory):
        there = next(above for above in (path, *path.parents) if above.exists())
        with contextlib.suppress(OSError):
            info = os.statvfs(there)
            found[path] = Space(info.f_bavail * info.f_frsize, info.f_favail if info.f_files else None)
    return found


def _closed_chains() -> tuple[Chain, ...] | None:
    listing = _json("nft", "--json", "--terse", "list", "ruleset")
    return None if listing is None else closed_chains(listing["nftables"])


def closed_chains(items: list[dict[str, Any]]) -> tuple[Chain, ...]:
    """Return the base chains of other tables that drop what they do not name (libnftables-json(5))."""
    chains: dict[tuple[str, str, str], dict[str, Any]] = {}
    last: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for item in items:
        if (one := item.get("chain")) and one.get("hook") and one["table"] != ruleset.TABLE:
            chains[one["family"], one["table"], one["name"]] = one
        elif one := item.get("rule"):
            last[one["family"], one["table"], one["chain"]] = one["expr"]
    return tuple(
        Chain(*place, one["hook"])
        for place, one in chains.items()
        if place[0] in ("ip", "ip6", "inet")
        and (one.get("policy") == "drop" or _drops_all(last.get(place, [])))
    )


def _drops_all(expressions: list[dict[str, Any]]) -> bool:
    """Tell whether a rule without any condition drops or rejects."""
    names = {name for expression in expressions for name in expression}
    return bool(names & {"drop", "reject"}) and names <= {"drop", "reject", "counter", "log"}


def _legacy_tables() -> tuple[str, ...]:
    names = set()
    for file in ("ip_tables_names", "ip6_tables_names"):
        with contextlib.suppress(OSError):
            names |= set(Path("/proc/net", file).read_text().split())
    return tuple(sorted(names))


def _udp_ports() -> frozenset[int]:
    ports = set()
    for file in ("udp", "udp6"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path("/proc/net", file).read_text().splitlines()[1:]:
                ports.add(int(line.split()[1].rpartition(":")[2], 16))
    return frozenset(ports)


def _users(chosen: Mapping[str, Any]) -> dict[int, str]:
    found = {}
    for name in ("forwarder_uid", "flusher_uid"):
        with contextlib.suppress(KeyError):
            found[chosen[name]] = pwd.getpwuid(chosen[name]).pw_name
    return found


def _synchronised() -> bool | None:
    """Ask adjtimex(2), which with no mode changes nothing."""
    timex = (ctypes.c_int * (_TIMEX_BYTES // 4))()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
        return None
    return not timex[_TIMEX_STATUS] & _STA_UNSYNC


def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
