"""Is everything there that the agent asks of kernel and distribution?"""

from __future__ import annotations

from collections.abc import Iterator

from tidegate_agents.doctor.facts import Facts
from tidegate_agents.doctor.finding import Finding, fail, ok, warn

_PACKAGES = {"wg": "wireguard-tools", "wg-quick": "wireguard-tools", "ip": "iproute2", "nft": "nftables"}
TOOLS = {"client": ("wg", "wg-quick", "ip"), "gateway": ("wg", "ip", "nft")}
"""The programs that an agent cannot do without."""
_KERNEL = (5, 6)  # pidfd_getfd(2), by which a gateway's agent takes a TUN over
_MODPROBE = "apt install linux-image-$(dpkg --print-architecture), or modprobe"


def version(facts: Facts) -> Iterator[Finding]:
    """Look at the kernel's version."""
    name = ".".join(map(str, facts.kernel))
    if facts.is_gateway and facts.kernel < _KERNEL:
        mend = f"use a kernel of {_KERNEL[0]}.{_KERNEL[1]} or later"
        yield fail("kernel", f"Linux {name} cannot hand a TUN over between agents", mend)
    else:
        yield ok("kernel", f"Linux {name} on {facts.machine}")


def tools(facts: Facts) -> Iterator[Finding]:
    """Look for the programs that the agent runs."""
    for name in TOOLS[facts.kind]:
        tool = facts.tools[name]
        if tool.path is None:
            yield fail("tool", f"{name} is not on PATH", f"apt install {_PACKAGES[name]}")
        else:
            yield ok("tool", f"{tool.path}: {tool.version or 'version unknown'}")


def wireguard(facts: Facts) -> Iterator[Finding]:
    """Look for WireGuard: the kernel's, else wireguard-go."""
    kernel, userspace = facts.tries["wireguard"], facts.tools["wireguard-go"]
    if kernel.worked:
        yield ok("wireguard", "the kernel's own")
    elif userspace.path is not None:
        what = f"wireguard-go ({userspace.version or userspace.path}); the kernel has none ({kernel.said})"
        yield ok("wireguard", what)
    elif kernel.worked is None:
        mend = "look with: ip link add try0 type wireguard; ip link delete try0"
        yield warn("wireguard", f"whether the kernel has it is not known ({kernel.said})", mend)
    else:
        mend = f"apt install wireguard-go; or {_MODPROBE} wireguard"
        yield fail("wireguard", f"the kernel has none ({kernel.said}), and no wireguard-go is on PATH", mend)


def tun(facts: Facts) -> Iterator[Finding]:
    """Look whether a TUN can be made, where one is needed."""
    needed = facts.is_gateway or not facts.tries["wireguard"].worked
    found = facts.tries["tun"]
    if found.worked:
        yield ok("tun", "a TUN can be made")
    elif needed and found.worked is False:
        yield fail(
            "tun",
            f"no TUN can be made ({found.said})",
            f"{_MODPROBE} tun; in a container give it /dev/net/tun",
        )
    elif needed:
        yield warn(
            "tun", f"whether a TUN can be made is not known ({found.said})", "look with: ls -l /dev/net/tun"
        )


def nftables(facts: Facts) -> Iterator[Finding]:
    """Look whether the kernel takes the very rules that the agent would load."""
    if not facts.is_gateway:
        return
    found = facts.tries["ruleset"]
    if found.worked:
        yield ok("nftables", "the kernel takes the gateway's rules")
    elif found.worked is False:
        mend = f"{_MODPROBE} nf_tables nft_ct nft_fib_inet nft_limit nft_masq nft_connlimit"
        yield fail("nftables", f"the gateway's rules are refused ({found.said})", mend)
    else:
        yield warn(
            "nftables",
            f"whether the kernel takes the gateway's rules is not known ({found.said})",
            "mend that",
        )


def conntrack(facts: Facts) -> Iterator[Finding]:
    """Look whether connections can be listed and cut, and whether their table has room."""
    if not facts.is_gateway:
        return
    found = facts.tries["conntrack"]
    if found.worked is False:
        mend = f"{_MODPROBE} nf_conntrack_netlink"
        yield fail("conntrack", f"connections cannot be listed ({found.said})", mend)
    most, used = (facts.sysctls.get(f"netfilter/nf_conntrack_{name}", "") for name in ("max", "count"))
    if not most.isdecimal():
        yield ok("conntrack", "no connection table yet; it comes with the gateway's rules")
        return
    wanted = int(facts.settings["client_connections"])
    if wanted > int(most):
        yield warn(
            "conntrack",
            f"one client may have {wanted} connections (client_connections), and the whole table has room for {most}",
            f"sysctl -w net.netfilter.nf_conntrack_max={max(4 * wanted, 262144)}; or lower client_connections",
        )
    elif used.isdecimal() and int(used) * 5 >= int(most) * 4:
        mend = f"sysctl -w net.netfilter.nf_conntrack_max={2 * int(most)}"
        yield warn("conntrack", f"the connection table is nearly full: {used} of {most}", mend)
    else:
        yield ok("conntrack", f"{used or 0} of {most} connections")


def fence(facts: Facts) -> Iterator[Finding]:
    """Look for what the event ring needs where loads and stores may change places."""
    if facts.is_gateway and not facts.libatomic:
        what = f"{facts.machine} needs libatomic for the event ring, and there is none"
        yield fail("libatomic", what, "apt install libatomic1")
