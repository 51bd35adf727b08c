"""Do interfaces, routing and other tools' rules let the agent's packets pass?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tidegate_agents.doctor.facts import Facts
from tidegate_agents.doctor.finding import Finding, fail, ok, warn

_OVERHEAD = 80  # bytes that WireGuard adds over IPv6: 40 + 8 + 32 (wireguard.com/protocol: 4 + 4 + 8 + 16)
_FORWARDING = {"IPv4": "ipv4/ip_forward", "IPv6": "ipv6/conf/all/forwarding"}


def sysctls(facts: Facts) -> Iterator[Finding]:
    """Look whether the agent may set what it has to."""
    if facts.is_gateway and not facts.sysctls_writable:
        mend = "in a container: run it privileged, so that /proc/sys/net is writable"
        yield fail("sysctls", "/proc/sys/net cannot be written, so forwarding cannot be switched on", mend)


def forwarding(facts: Facts) -> Iterator[Finding]:
    """Look whether a gateway forwards; the agent switches it on when it starts, and off again when it stops."""
    for family, path in _FORWARDING.items() if facts.is_gateway else ():
        value = facts.sysctls.get(path)
        name = f"net.{path.replace('/', '.')}"
        if value is None:
            yield warn(
                "ip_forward", f"this kernel has no {family}", f"boot with {family}, unless that is wanted"
            )
        elif value != "0":
            yield ok("ip_forward", f"{family} is forwarded")
        elif facts.agent is None:
            yield ok(
                "ip_forward",
                f"{family} is not forwarded yet: the agent switches it on, and off again when it stops",
            )
        else:
            what = f"{family} is not forwarded: something has switched it off while the agent runs"
            yield fail("ip_forward", what, f"sysctl -w {name}=1; and take {name}=0 out of /etc/sysctl.d")


def advertisements(facts: Facts) -> Iterator[Finding]:
    """Look for an IPv6 default route that is lost once the host forwards (ip-sysctl: accept_ra)."""
    for route in facts.uplinks if facts.is_gateway else ():
        path = f"ipv6/conf/{route.link}/accept_ra"
        if route.protocol == "ra" and facts.sysctls.get(path) == "1":
            what = (
                f"a router advertises the IPv6 default route by {route.link}; a host that forwards takes none"
            )
            yield warn("accept_ra", what, f"sysctl -w net.{path.replace('/', '.')}=2, and in /etc/sysctl.d")


def rp_filter(facts: Facts) -> Iterator[Finding]:
    """Look for a check of source addresses that drops what is ours; the greater of all and the interface's counts."""
    strict = False
    tun = facts.settings["tun"] if facts.is_gateway else None
    if tun is not None and tun in facts.links:
        if _effective(facts, tun) == 1:
            strict = True
            what = f"rp_filter of {tun} is strict: everything that the forwarder lets pass is dropped"
            yield fail("rp_filter", what, f"sysctl -w net.ipv4.conf.{tun}.rp_filter=2")
        elif _effective(facts, tun) == 2 and not any("." in one for one in facts.links[tun].addresses):
            strict = True
            what = f"{tun} has no IPv4 address, without which rp_filter 2 drops everything too"
            yield fail("rp_filter", what, f"ip address add {facts.settings['tun_address']}/32 dev {tun}")
    several = Counter(route.family for route in facts.uplinks)[4] > 1
    for link in sorted({route.link for route in facts.uplinks if route.family == 4} if several else ()):
        if _effective(facts, link) == 1:
            strict = True
            what = (
                f"rp_filter of {link} is strict, and of several default routes only one may bring in a packet"
            )
            yield warn("rp_filter", what, f"sysctl -w net.ipv4.conf.{link}.rp_filter=2")
    if not strict:
        yield ok(
            "rp_filter",
            "it drops nothing of the agent's" + (", which sets that of its TUN itself" if tun else ""),
        )


def _effective(facts: Facts, link: str) -> int:
    values = (facts.sysctls.get(f"ipv4/conf/{name}/rp_filter", "0") for name in ("all", link))
    return max(int(value) if value.isdecimal() else 0 for value in values)


def mtu(facts: Facts) -> Iterator[Finding]:
    """Look whether WireGuard's packets fit into those of the way out."""
    inner = facts.links[facts.interface].mtu if facts.interface in facts.links else int(facts.settings["mtu"])
    ways = {route.link for route in facts.uplinks} & facts.links.keys()
    narrow = {name: facts.links[name].mtu for name in ways if facts.links[name].mtu < inner + _OVERHEAD}
    for name, outer in sorted(narrow.items()):
        what = f"{inner} bytes and WireGuard's {_OVERHEAD} are more than the {outer} of {name}: large packets are lost"
        yield warn("mtu", what, f"set mtu: {max(outer - _OVERHEAD, 1280)} in {facts.places.settings}")
    if not narrow:
        yield ok(
            "mtu",
            f"{inner} on {facts.interface}"
            + (f", at least {_OVERHEAD} less than any way out" if ways else ""),
        )


def interface(facts: Facts) -> Iterator[Finding]:
    """Look whether the interface's name is free, or the agent's own."""
    name = facts.interface
    here = facts.interface_is_ours
    file = next((path for path in facts.entries if path.name == f"{name}.conf"), None)
    if name in facts.links and here is False:
        mend = f"ip link delete {name}; or name another 'interface' in {facts.places.settings}"
        yield fail("interface", f"{name} is there and has not this host's key: another tool's", mend)
    elif name in facts.links and facts.agent is None:
        what = f"{name} is there with this host's key, and no agent runs: one was killed, or wg-quick made it"
        yield warn(
            "interface",
            what,
            f"start the agent, which takes it over; if wg-quick made it: wg-quick down {name}",
        )
    elif file is not None and facts.entries[file] is not None:
        yield warn(
            "interface",
            f"{file} is there: wg-quick may bring up an interface of the same name",
            f"remove {file}",
        )
    else:
        yield ok(
            "interface", f"{name} is the agent's own" if name in facts.links else f"the name {name} is free"
        )
    if facts.agent is not None:
        yield ok("agent", f"it runs, process {facts.agent}")
    else:
        yield ok("agent", f"none runs; start it with 'tidegate {facts.kind} run' or its service")


def port(facts: Facts) -> Iterator[Finding]:
    """Look whether WireGuard's port is free, or its own."""
    wanted = int(facts.settings["listen_port"])
    if not wanted:
        return
    is_its_own = facts.interface in facts.links and facts.interface_is_ours is not False
    if wanted in facts.udp_ports and not is_its_own:
        mend = f"look whose it is with: ss -lunp sport = :{wanted}; or set another listen_port"
        yield fail("port", f"UDP port {wanted} is in use by something else", mend)
    else:
        yield ok("port", f"UDP port {wanted} is " + ("WireGuard's" if wanted in facts.udp_ports else "free"))


def firewall(facts: Facts) -> Iterator[Finding]:
    """Look for rules of others that drop what they do not name: a packet passes only if every table lets it."""
    if facts.closed_chains is None:
        return
    hooks = {"forward": "packets of clients", "input": "WireGuard's packets"} if facts.is_gateway else {}
    closed = [chain for chain in facts.closed_chains if chain.hook in hooks]
    for chain in closed:
        where = f"table {chain.family} {chain.table}, chain {chain.name}"
        what = f"{where} drops {hooks[chain.hook]} unless a rule of it names them"
        let = (
            f"UDP port {facts.settings['listen_port']}"
            if chain.hook == "input"
            else f"from and to {facts.interface} and {facts.settings['tun']}"
        )
        yield warn("firewall", what, f"let pass there: {let}")
    for table in facts.legacy_tables if facts.is_gateway else ():
        mend = f"look with: iptables-legacy -t {table} -L -v"
        yield warn(
            "firewall",
            f"there are rules of the older iptables (table {table}), which are not looked into",
            mend,
        )
    if not closed and not (facts.is_gateway and facts.legacy_tables):
        yield ok("firewall", "no other table drops what it does not name")
