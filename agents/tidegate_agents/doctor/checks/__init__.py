"""The checks: each looks at the facts and yields findings. Pure, and in the order in which things are mended best."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tidegate_agents.doctor.checks import files, kernel, network, time
from tidegate_agents.doctor.facts import Facts
from tidegate_agents.doctor.finding import Finding

Check = Callable[[Facts], Iterable[Finding]]
CHECKS: tuple[Check, ...] = (
    *(
        kernel.version,
        kernel.tools,
        kernel.wireguard,
        kernel.tun,
        kernel.nftables,
        kernel.conntrack,
        kernel.fence,
    ),
    *(files.identity, files.settings, files.permissions, files.users, files.space, files.bundles),
    *(time.clock, time.synchronisation),
    *(network.sysctls, network.forwarding, network.advertisements, network.rp_filter, network.mtu),
    *(network.interface, network.port, network.firewall),
)


def judge(facts: Facts) -> list[Finding]:
    """Return every finding."""
    return [finding for check in CHECKS for finding in check(facts)]
