"""The gateway's nftables ruleset, as text for one `nft -f` transaction. Pure: settings in, text out.

    prerouting raw     inner packets, not for this host: of a flow in the flow set, on its way; else, within its
                       client's limits, notrack and mark, so that routing leads it into the TUN
    forward, late      from the TUN: the forwarder has allowed it, and no rule of anybody's has dropped it, so its
                       connection is marked and its flow comes into the set, for a time; from WireGuard: only into the
                       TUN, or of a flow in the set; to WireGuard: only replies of approved connections
    input, output      this host's own addresses are no way around: nothing in, nothing out but ICMP errors about
                       approved connections
    postrouting nat    masquerade, by local setting

notrack on the first pass, because conntrack would make its NAT decision there and masquerade would silently never
apply. In observe no rule drops. `bypass` (observe only) leaves the TUN out while no forwarder reads it.

The flow set is the kernel's memory of what the forwarder has allowed: each flow is judged again once per timeout, and
emptying the set has every one judged with its next packet. Replies need a mark in `live`, which a running agent renews:
when nobody is left on this host, both directions end within a timeout.

Limits, in enforce only and while the kernel remembers flows: one client must not keep the forwarder, the sets or the
connection table from the others. What the forwarder has denied it writes to a second TUN, whose packets go nowhere but
into the set of the denied: the same again is dropped without it. A client's packets to the forwarder are limited in a
second, its flows in the set, and its connections. Each limit counts what it stops.

Everything is in one private table; nothing of anyone else's is touched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

TABLE = "tidegate"
APPROVED = 0x74000001
"""Connection mark of what the forwarder has allowed."""
_FLOWS_MOST = 262144  # some 60 MB of kernel memory; a flow that finds no room goes on crossing the TUN
_DENIED_MOST, _DENIED_SECONDS = 65536, 10
_CLIENTS_MOST, _CLIENT_SECONDS = 262144, 60
_CROWDED_SECONDS = 1
_BURST = (
    2048  # packets; half of the TUN's queue (gateway.network.QUEUE_LENGTH), so that it has room for others
)
COUNTERS = ("denied_again", "limit_upcalls", "limit_flows", "limit_connections")
"""What the limits count, in packets: three drop them, `limit_flows` leaves a flow unremembered."""

_ERRORS4 = "{ destination-unreachable, time-exceeded, parameter-problem }"
_ERRORS6 = "{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem }"
_PORTED = "meta l4proto { tcp, udp, sctp }"
_HEADERS = {"4": "ip", "6": "ip6"}
_NAMES = {
    family: f"{header} saddr . {header} daddr . meta l4proto . th sport . th dport"
    for family, header in _HEADERS.items()
}
_TARGETS = {
    family: f"{header} saddr . {header} daddr . meta l4proto . th dport"
    for family, header in _HEADERS.items()
}
# With options or extension headers a packet is another one than was judged: it may be routed by them.
_KNOWN = {
    "4": f"ip hdrlength 5 {_NAMES['4']}",
    "6": _NAMES["6"].replace("meta l4proto", "ip6 nexthdr"),
}


def has_flows(settings: Mapping[str, Any]) -> bool:
    """Tell whether the kernel remembers flows; not while every packet is logged, since it would log none of them."""
    return bool(settings["flow_cache"] and not is_packet_logged(settings))


def is_packet_logged(settings: Mapping[str, Any]) -> bool:
    """Tell whether every packet is to have an event."""
    return bool(settings["logging_enabled"] and settings["log_granularity"] == "packet")


def has_limits(settings: Mapping[str, Any], *, enforce: bool) -> bool:
    """Tell whether clients are limited: not in observe, nor while every packet is to cross the TUN."""
    return enforce and has_flows(settings)


def render(
    settings: Mapping[str, Any], *, enforce: bool, bypass: bool = False, only_ours: Collection[str] = ()
) -> str:
    """Return the whole ruleset for one mode; loading it replaces the one before in one step, with an empty flow set.

    `only_ours` names the families (ipv4, ipv6) that the host forwards for Tidegate alone: in enforce nothing else of
    them is forwarded.
    """
    wg, tun, mark = f'"{settings["interface"]}"', f'"{settings["tun"]}"', f"{settings['mark']:#x}"
    hit, denied = f"{settings['mark'] + 1:#x}", f'"{settings["denied_tun"]}"'
    assert not (enforce and bypass)
    flows = has_flows(settings) and not bypass
    limits = settings if has_limits(settings, enforce=enforce) else None
    lines = [
        f"table inet {TABLE}",
        f"delete table inet {TABLE}",
        f"table inet {TABLE} {{",
        *(_sets(settings["flow_timeout"]) if flows else ()),
        *(_limit_sets(limits) if limits else ()),
        " chain raw {",
        "  type filter hook prerouting priority raw; policy accept;",
        f"  iifname {wg} goto inner",
        f"  iifname {tun} accept",
        # Without limits, of a forwarder that does not know yet that there are none any more.
        f"  iifname {denied} {'goto denied' if limits else 'drop'}" if enforce else "",
        # A client's address comes from WireGuard, or it is forged.
        f"  fib saddr oifname {wg} counter drop" if enforce else "",
        " }",
        " chain inner {",
        # Before anything else, since most packets are of a flow that is known. No ports are read of other protocols,
        # or of a later fragment, that would be in the set.
        *(
            f"  {key} @flows{family} meta mark set {hit} counter accept"
            for family, key in _KNOWN.items()
            if flows
        ),
        *(_limit_denied() if limits else ()),
        "  fib daddr type { local, broadcast, multicast } accept",
        *(_limit_upcalls(limits["client_upcalls"]) if limits else ()),
        *(_limit_crowded() if limits and limits["client_connections"] else ()),
        "" if bypass else f"  notrack meta mark set {mark} counter",
        " }",
        " chain forward {",
        # Behind other tools' rules: a packet that one of them drops has not opened its flow.
        "  type filter hook forward priority filter + 10; policy accept;",
        *(
            _forward_in_enforce(wg, tun, mark, hit, only_ours, limits, flows=flows)
            if enforce
            else _forward_in_observe(wg, tun, hit if flows else None)
        ),
    ]
    if enforce:
        lines += _own_addresses(wg, tun, settings["flow_timeout"])
    if settings["masquerade"]:
        names = ", ".join(f'"{name}"' for name in settings["masquerade"])
        lines += [
            " chain nat {",
            "  type nat hook postrouting priority srcnat; policy accept;",
            f"  iifname {{ {tun}, {wg} }} oifname {{ {names} }} masquerade",
            " }",
        ]
    return "\n".join(line for line in [*lines, "}"] if line) + "\n"


def forget_flows(settings: Mapping[str, Any], *, enforce: bool) -> str:
    """Return what empties the sets of what has been judged, in one step."""
    kinds = ("flows", "denied") if has_limits(settings, enforce=enforce) else ("flows",)
    return "".join(f"flush set inet {TABLE} {kind}{family}\n" for kind in kinds for family in _HEADERS)


def stay_live(timeout: int) -> str:
    """Return what lets replies pass for another timeout of so many seconds."""
    return (
        f"flush set inet {TABLE} live\nadd element inet {TABLE} live {{ {APPROVED:#x} timeout {timeout}s }}\n"
    )


def _sets(timeout: int) -> list[str]:
    return [
        f" set flows{family} {{ type {kind} . {kind} . inet_proto . inet_service . inet_service; "
        f"flags dynamic, timeout; timeout {timeout}s; size {_FLOWS_MOST}; }}"
        for family, kind in (("4", "ipv4_addr"), ("6", "ipv6_addr"))
    ]


def _limit_sets(limits: Mapping[str, Any]) -> list[str]:
    """Return the counters, the denied, and what is known of each client; without its limit a set is left out."""
    kinds = (("4", "ipv4_addr"), ("6", "ipv6_addr"))
    timed = f"flags dynamic, timeout; timeout {_CLIENT_SECONDS}s; size {_CLIENTS_MOST};"
    shortly = f"flags dynamic, timeout; timeout {_CROWDED_SECONDS}s; size {_CLIENTS_MOST};"
    per_client = {
        "upcalls": ("client_upcalls", timed),
        "rates": ("client_flows", timed),
        "connections": ("client_connections", f"flags dynamic; size {_CLIENTS_MOST};"),
        "crowded": ("client_connections", shortly),
    }
    return [
        *(f" counter {name} {{ }}" for name in COUNTERS),
        *(
            f" set denied{family} {{ type {kind} . {kind} . inet_proto . inet_service; "
            f"flags dynamic, timeout; timeout {_DENIED_SECONDS}s; size {_DENIED_MOST}; }}"
            for family, kind in kinds
        ),
        *(
            f" set {name}{family} {{ type {kind}; {flags} }}"
            for name, (limit, flags) in per_client.items()
            if limits[limit]
            for family, kind in kinds
        ),
        " chain denied {",
        *(f"  {_PORTED} update @denied{family} {{ {key} }}" for family, key in _TARGETS.items()),
        "  drop",
        " }",
        *(_crowded() if limits["client_connections"] else ()),
    ]


def _crowded() -> list[str]:
    return [
        " chain crowded {",
        *(f"  update @crowded{family} {{ {header} saddr }}" for family, header in _HEADERS.items()),
        "  counter name limit_connections drop",
        " }",
    ]


def _limit_denied() -> list[str]:
    return [
        f"  {_PORTED} {key} @denied{family} counter name denied_again drop"
        for family, key in _TARGETS.items()
    ]


def _limit_upcalls(most: int) -> list[str]:
    rate = f"limit rate over {most}/second burst {_BURST} packets"
    return [
        f"  update @upcalls{family} {{ {header} saddr {rate} }} counter name limit_upcalls drop"
        for family, header in _HEADERS.items()
        if most
    ]


def _limit_flows(most: int, timeout: int) -> list[str]:
    # In any timeout there come in at most the burst and what the rate allows: each half of it.
    rate = f"limit rate over {max(most // 2 // timeout, 1)}/second burst {max(most // 2, 1)} packets"
    return [
        f"  {_PORTED} update @rates{family} {{ {header} saddr {rate} }} counter name limit_flows accept"
        for family, header in _HEADERS.items()
        if most
    ]


def _limit_connections(most: int) -> list[str]:
    return [
        f"  ct state new add @connections{family} {{ {header} saddr ct count over {most} }} goto crowded"
        for family, header in _HEADERS.items()
        if most
    ]


def _limit_crowded() -> list[str]:
    # The kernel counts a client's connections by looking each up, which takes it a third of a millisecond for 4,096. So
    # of who is beyond the limit nothing that may be new comes that far for a while. What is dropped here counts
    # as upcalls, whose limit would else save up a burst for the forwarder until the while is over.
    return [
        f"  {header} saddr @crowded{family} counter name limit_connections drop"
        for family, header in _HEADERS.items()
    ]


# Nearly every packet's connection is marked already, and to look costs less than to mark.
_APPROVE = f"ct mark != {APPROVED:#x} ct direction original ct mark set {APPROVED:#x}"


def _not_back(*links: str) -> list[str]:
    # A comparison each: for two names a set costs several times as much.
    return [f"  oifname {link} counter drop" for link in links]


def _remember() -> list[str]:
    return [
        # Its destination is another one than was judged, so that a packet straight to it has not been judged.
        "  ct status dnat accept",
        *(f"  {_PORTED} update @flows{family} {{ {key} }}" for family, key in _NAMES.items()),
    ]


def _forward_in_observe(wg: str, tun: str, hit: str | None) -> list[str]:
    return [
        f"  iifname {wg} meta mark {hit} {_APPROVE}" if hit else "",
        f"  iifname != {tun} accept",
        f"  {_APPROVE}",
        *(_remember() if hit else ()),
        " }",
    ]


def _forward_in_enforce(
    wg: str,
    tun: str,
    mark: str,
    hit: str,
    only_ours: Collection[str],
    limits: Mapping[str, Any] | None,
    *,
    flows: bool,
) -> list[str]:
    elsewhere = f"oifname != {wg} oifname != {tun}"
    return [
        # Most packets: of a remembered flow, so from a client, in a connection that is marked. To go through the rules
        # of such below takes longer.
        f"  meta mark {hit} {elsewhere} ct mark {APPROVED:#x} accept" if flows else "",
        f"  iifname {wg} goto from_client",
        f"  iifname {tun} goto allowed",
        f"  oifname {wg} ct state established,related ct mark @live counter accept",
        f"  oifname {{ {wg}, {tun} }} counter drop",
        *(f"  meta nfproto {family} counter drop" for family in sorted(only_ours)),
        " }",
        " chain from_client {",
        # Also where no flows are remembered: a packet of the rules before these may be between raw and here.
        f"  meta mark {hit} goto known",
        f"  meta mark {mark} oifname {tun} accept",
        "  counter drop",
        " }",
        " chain known {",
        *_not_back(wg, tun),
        f"  {_APPROVE}",
        "  accept",
        " }",
        " chain allowed {",
        *_not_back(wg, tun),
        f"  icmp type {_ERRORS4} ct state != related counter drop",
        f"  icmpv6 type {_ERRORS6} ct state != related counter drop",
        *(_limit_connections(limits["client_connections"]) if limits else ()),
        f"  {_APPROVE} counter",
        *(_limit_flows(limits["client_flows"], limits["flow_timeout"]) if limits else ()),
        *(_remember() if flows else ()),
        "  accept",
        " }",
    ]


def _own_addresses(wg: str, tun: str, timeout: int) -> list[str]:
    return [
        f" set live {{ type mark; flags timeout; elements = {{ {APPROVED:#x} timeout {timeout}s }}; }}",
        " chain input {",
        "  type filter hook input priority filter; policy accept;",
        f"  iifname {{ {wg}, {tun} }} counter drop",
        " }",
        " chain output {",
        "  type filter hook output priority filter; policy accept;",
        f"  oifname {wg} ct state related ct mark @live accept",
        f"  oifname {{ {wg}, {tun} }} counter drop",
        " }",
    ]
