"""Links, addresses, routes, rules and sysctls of a gateway, through netlink; each call may be repeated.

ip rule   priority P  fwmark M  lookup T          what the raw chain marked goes to table T
table T   default dev TUN                         into the forwarder
          unreachable default  metric max         enforce: with the TUN gone, packets are refused at once
                                                  observe: not there, so routing falls through and goes on
main      CLIENT PREFIX dev WIREGUARD  proto 116  back to the clients
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytun
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tidegate_agents.datapath.offload import negotiate
from tidegate_agents.host import HostError

QUEUE_LENGTH = 4096
_IFF_VNET_HDR = 0x4000  # linux/if_tun.h; python-pytun has no name for it
_IFF_UP = 1
_UNICAST, _UNREACHABLE = 1, 7  # RTN_* of linux/rtnetlink.h
ROUTE_PROTOCOL = 116  # marks the routes in main as ours; unassigned in /etc/iproute2/rt_protos
_TUN_BUSY_SECONDS = 5.0
_LAST_METRIC = 0xFFFFFFFE
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_DEFAULT = {socket.AF_INET: "0.0.0.0/0", socket.AF_INET6: "::/0"}


@contextlib.contextmanager
def _tolerate(*codes: int) -> Any:
    try:
        yield
    except NetlinkError as error:
        if error.code not in codes:
            raise


def sysctl(path: str, value: str) -> None:
    """Set a sysctl of this network namespace, below net, if there is one of this name."""
    file = Path("/proc/sys/net") / path
    if file.exists() and file.read_text().strip() != value:
        file.write_text(value)


def read_sysctl(path: str) -> str | None:
    """Return its value, None when there is none."""
    file = Path("/proc/sys/net") / path
    return file.read_text().strip() if file.exists() else None


def index(name: str) -> int | None:
    """Return an interface's index, None when there is none of that name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def open_denied_tun(settings: Mapping[str, Any], fd: int = -1) -> int:
    """Make the TUN for denied packets, or take one over; returns its descriptor. Nothing is ever routed to it."""
    name = settings["denied_tun"]
    fd = _descriptor(name, fd)
    _quieten(name)
    with IPRoute() as ip:
        ip.link("set", index=index(name), mtu=settings["mtu"], state="up")
    return fd


def open_tun(settings: Mapping[str, Any], fd: int = -1) -> tuple[int, int]:
    """Make the TUN, or take one over by its descriptor; returns that, non-blocking, and its `datapath.offload`.

    The interface lives as long as a descriptor does. Each packet comes behind a virtio_net_hdr.
    """
    name = settings["tun"]
    fd = _descriptor(name, fd)
    offloads = negotiate(fd, settings["offloads"])
    _quieten(name)
    # 1 would lose everything; 2 needs an IPv4 address on the interface (measured: design §6).
    sysctl(f"ipv4/conf/{name}/rp_filter", "2")
    give_address(settings)
    with IPRoute() as ip:
        number = index(name)
        ip.link("set", index=number, mtu=settings["mtu"], txqlen=QUEUE_LENGTH)
        ip.link("set", index=number, state="up")
    return fd, offloads


def give_address(settings: Mapping[str, Any]) -> None:
    """Give the TUN the address that rp_filter's loose check needs."""
    with IPRoute() as ip, _tolerate(errno.EEXIST):
        ip.addr("add", index=index(settings["tun"]), address=settings["tun_address"], prefixlen=32)


def _descriptor(name: str, fd: int) -> int:
    if fd < 0:
        tun = _attach_tun(name)
        fd = os.dup(tun.fileno())  # close-on-exec, which python-pytun's own descriptor is not
        tun.close()
    os.set_blocking(fd, False)
    return fd


def _quieten(name: str) -> None:
    sysctl(f"ipv6/conf/{name}/addr_gen_mode", "1")
    sysctl(f"ipv6/conf/{name}/accept_ra", "0")


def _attach_tun(name: str) -> Any:
    deadline = time.monotonic() + _TUN_BUSY_SECONDS
    while True:
        try:
            return pytun.TunTapDevice(name=name, flags=pytun.IFF_TUN | pytun.IFF_NO_PI | _IFF_VNET_HDR)
        except pytun.Error as error:
            if error.args[0] != errno.EBUSY or time.monotonic() > deadline:
                raise HostError(f"cannot make the TUN {name}: {error.args[-1]}") from None
            time.sleep(0.05)  # the forwarder of an agent that was killed is about to follow it


def lead_into_tun(settings: Mapping[str, Any], *, enforce: bool) -> None:
    """Route marked packets into the TUN, and in enforce nowhere else; the refusal comes before the way in."""
    number, table = index(settings["tun"]), settings["table"]
    with IPRoute() as ip:
        for family in _FAMILIES:
            refuse = {
                "family": family,
                "dst": _DEFAULT[family],
                "table": table,
                "type": "unreachable",
                "priority": _LAST_METRIC,
            }
            with _tolerate(errno.EEXIST, errno.ESRCH, errno.ENOENT):
                ip.route("add" if enforce else "del", **refuse)
            ip.route("replace", family=family, dst=_DEFAULT[family], oif=number, table=table, priority=1)
            with _tolerate(errno.EEXIST):
                ip.rule(
                    "add",
                    family=family,
                    priority=settings["rule_priority"],
                    fwmark=settings["mark"],
                    table=table,
                )


def is_led(settings: Mapping[str, Any], *, enforce: bool) -> bool:
    """Tell whether what `lead_into_tun` made is there still, and both TUNs are up."""
    number, table = index(settings["tun"]), settings["table"]
    rule = {"FRA_PRIORITY": settings["rule_priority"], "FRA_FWMARK": settings["mark"], "FRA_TABLE": table}
    with IPRoute() as ip:
        for name in ("tun", "denied_tun"):
            if not ip.get_links(index(settings[name]))[0]["flags"] & _IFF_UP:
                return False
        addresses = {one.get_attr("IFA_LOCAL") for one in ip.get_addr(index=number, family=socket.AF_INET)}
        if settings["tun_address"] not in addresses:
            return False
        for family in _FAMILIES:
            rules = ip.get_rules(family=family)
            if not any(all(one.get_attr(name) == value for name, value in rule.items()) for one in rules):
                return False
            routes = ip.get_routes(family=family, table=table)
            found = {(route["type"], route.get_attr("RTA_OIF")) for route in routes if not route["dst_len"]}
            if (_UNICAST, number) not in found or enforce != any(kind == _UNREACHABLE for kind, _ in found):
                return False
    return True


def lead_nowhere(settings: Mapping[str, Any]) -> None:
    """Take the rule and the TUN's table away again."""
    with IPRoute() as ip:
        for family in _FAMILIES:
            with _tolerate(errno.ENOENT, errno.ESRCH):
                ip.rule(
                    "del",
                    family=family,
                    priority=settings["rule_priority"],
                    fwmark=settings["mark"],
                    table=settings["table"],
                )
            ip.flush_routes(family=family, table=settings["table"])


def client_routes(interface: str) -> frozenset[str]:
    """Return the prefixes that lead to the WireGuard interface by routes of our own."""
    number = index(interface)
    with IPRoute() as ip:
        return frozenset(
            f"{route.get_attr('RTA_DST')}/{route['dst_len']}"
            for family in _FAMILIES
            for route in ip.get_routes(family=family, oif=number, proto=ROUTE_PROTOCOL, table=254)
        )


def set_routes(interface: str, desired: Iterable[str]) -> None:
    """Make `desired` the prefixes that lead to the WireGuard interface; only our own routes are touched."""
    number = index(interface)
    want, have = set(desired), client_routes(interface)
    with IPRoute() as ip:
        # First what comes: a client that stays may have been in a larger prefix, and is to be in a smaller one.
        for prefix in sorted(want - have):
            ip.route("replace", dst=prefix, oif=number, proto=ROUTE_PROTOCOL)
        for prefix in sorted(have - want):
            with _tolerate(errno.ESRCH):
                ip.route("del", dst=prefix, oif=number, proto=ROUTE_PROTOCOL)


def add_wireguard(interface: str) -> bool:
    """Make a kernel WireGuard interface; False when this kernel has no WireGuard."""
    with IPRoute() as ip:
        try:
            ip.link("add", ifname=interface, kind="wireguard")
        except NetlinkError as error:
            if error.code not in (errno.EOPNOTSUPP, errno.ENODEV):
                raise
            return False
    return True


def bring_up(interface: str, mtu: int) -> None:
    """Set an interface's MTU and bring it up."""
    with IPRoute() as ip:
        ip.link("set", index=index(interface), mtu=mtu, state="up")


def leave_sources_to_wireguard(interface: str) -> None:
    """Spare packets from WireGuard the kernel's look at their source address, a second routing lookup for each.

    WireGuard has tied the address to a key, which is more than rp_filter tells. What is this host's own address still
    comes no further than the TUN, where the kernel looks.
    """
    sysctl(f"ipv4/conf/{interface}/rp_filter", "0")
    sysctl(f"ipv4/conf/{interface}/accept_local", "1")  # without it `ip rule` alone makes the kernel look


def is_up(name: str) -> bool:
    """Tell whether an interface is there and up."""
    number = index(name)
    if number is None:
        return False
    with IPRoute() as ip, _tolerate(errno.ENODEV):
        return bool(ip.get_links(number)[0]["flags"] & _IFF_UP)
    return False


def take_down(interface: str) -> None:
    """Let nothing pass an interface from here on, if it is there."""
    number = index(interface)
    if number is not None:
        with IPRoute() as ip, _tolerate(errno.ENODEV):
            ip.link("set", index=number, state="down")


def delete(interface: str) -> None:
    """Take an interface away, if it is there."""
    number = index(interface)
    if number is not None:
        with IPRoute() as ip, _tolerate(errno.ENODEV):
            ip.link("del", index=number)


class Forwarding:
    """Switches the kernel's forwarding on, and back to what it was."""

    _FILES: ClassVar[dict[str, str]] = {"ipv4": "ipv4/ip_forward", "ipv6": "ipv6/conf/all/forwarding"}

    def __init__(self) -> None:
        self.were_off: frozenset[str] = frozenset()
        """The families, ipv4 and ipv6, that this host did not forward before the agent."""

    @classmethod
    def off(cls) -> frozenset[str]:
        """Return the families that this host does not forward now."""
        return frozenset(family for family, name in cls._FILES.items() if read_sysctl(name) == "0")

    def look(self, noted: Iterable[str]) -> None:
        """Find out what is off, and believe an earlier agent's note of what was."""
        self.were_off = self.off() | (frozenset(noted) & self._FILES.keys())

    @classmethod
    def enable(cls) -> None:
        """Let this host forward packets."""
        for family in cls.off():
            sysctl(cls._FILES[family], "1")

    def restore(self) -> None:
        """Put back what was off."""
        for family in self.were_off:
            sysctl(self._FILES[family], "0")
