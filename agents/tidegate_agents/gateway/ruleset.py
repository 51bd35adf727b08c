"""The gateway's nftables ruleset, as text for one `nft -f` transaction. Pure: settings in, text out.

    prerouting raw     from WireGuard, not for this host: notrack, mark, so that routing leads it into the TUN
    prerouting mangle  from the TUN: the forwarder has allowed it; mark its connection as approved
    forward            from the TUN: on its way; from WireGuard: only into the TUN; to WireGuard: only replies of
                       approved connections
    input, output      this host's own addresses are no way around: nothing in, nothing out but ICMP errors about
                       approved connections
    postrouting nat    masquerade, by local setting

notrack on the first pass, because conntrack would make its NAT decision there and masquerade would silently never
apply. In observe no rule drops. `bypass` (observe only) leaves the TUN out while no forwarder reads it.

Everything is in one private table; nothing of anyone else's is touched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

TABLE = "tidegate"
APPROVED = 0x74000001
"""Connection mark of what the forwarder has allowed."""

_ERRORS4 = "{ destination-unreachable, time-exceeded, parameter-problem }"
_ERRORS6 = "{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem }"


def render(
    settings: Mapping[str, Any], *, enforce: bool, bypass: bool = False, only_ours: Collection[str] = ()
) -> str:
    """Return the whole ruleset for one mode; loading it replaces the one before in one step.

    `only_ours` names the families (ipv4, ipv6) that the host forwards for Tidegate alone: in enforce nothing else of
    them is forwarded.
    """
    wg, tun, mark = f'"{settings["interface"]}"', f'"{settings["tun"]}"', f"{settings['mark']:#x}"
    assert not (enforce and bypass)
    lines = [
        f"table inet {TABLE}",
        f"delete table inet {TABLE}",
        f"table inet {TABLE} {{",
        " chain raw {",
        "  type filter hook prerouting priority raw; policy accept;",
        # A client's address comes from WireGuard, or it is forged.
        f"  iifname != {{ {wg}, {tun} }} fib saddr oifname {wg} counter drop" if enforce else "",
        f"  iifname != {wg} accept",
        "  fib daddr type { local, broadcast, multicast } accept",
        "" if bypass else f"  notrack meta mark set {mark} counter",
        " }",
        " chain approve {",
        "  type filter hook prerouting priority mangle; policy accept;",
        f"  iifname {tun} ct direction original ct mark set {APPROVED:#x}",
        " }",
    ]
    if enforce:
        lines += _enforce(wg, tun, mark, only_ours)
    if settings["masquerade"]:
        names = ", ".join(f'"{name}"' for name in settings["masquerade"])
        lines += [
            " chain nat {",
            "  type nat hook postrouting priority srcnat; policy accept;",
            f"  iifname {{ {tun}, {wg} }} oifname {{ {names} }} masquerade",
            " }",
        ]
    return "\n".join(line for line in [*lines, "}"] if line) + "\n"


def _enforce(wg: str, tun: str, mark: str, only_ours: Collection[str]) -> list[str]:
    approved = f"ct mark {APPROVED:#x}"
    return [
        " chain forward {",
        "  type filter hook forward priority filter; policy accept;",
        f"  iifname {tun} oifname {{ {wg}, {tun} }} counter drop",
        f"  iifname {tun} icmp type {_ERRORS4} ct state != related counter drop",
        f"  iifname {tun} icmpv6 type {_ERRORS6} ct state != related counter drop",
        f"  iifname {tun} counter accept",
        f"  iifname {wg} oifname {tun} meta mark {mark} accept",
        f"  iifname {wg} counter drop",
        f"  oifname {wg} ct state established,related {approved} counter accept",
        f"  oifname {{ {wg}, {tun} }} counter drop",
        *(f"  meta nfproto {family} counter drop" for family in sorted(only_ours)),
        " }",
        " chain input {",
        "  type filter hook input priority filter; policy accept;",
        f"  iifname {{ {wg}, {tun} }} counter drop",
        " }",
        " chain output {",
        "  type filter hook output priority filter; policy accept;",
        f"  oifname {wg} ct state related {approved} accept",
        f"  oifname {{ {wg}, {tun} }} counter drop",
        " }",
    ]
