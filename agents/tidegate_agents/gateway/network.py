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


def _sysctl(path: str, value: str) -> None:
    file = Path("/proc/sys/net") / path
    if file.exists() and file.read_text().strip() != value:
        file.write_text(value)


def index(name: str) -> int | None:
    """Return an interface's index, None when there is none of that name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def open_tun(settings: Mapping[str, Any]) -> tuple[int, int]:
    """Make the TUN; returns its descriptor, non-blocking, and its offloads (`datapath.offload`).

    The interface lives as long as a descriptor does. Each packet comes behind a virtio_net_hdr.
    """
    tun = _attach_tun(settings["tun"])
    fd = os.dup(tun.fileno())  # close-on-exec, which python-pytun's own descriptor is not
    tun.close()
    os.set_blocking(fd, False)
    offloads = negotiate(fd, settings["offloads"])
    name = settings["tun"]
    _sysctl(f"ipv6/conf/{name}/addr_gen_mode", "1")
    _sysctl(f"ipv6/conf/{name}/accept_ra", "0")
    # 1 would lose everything; 2 needs an IPv4 address on the interface (measured: design §6).
    _sysctl(f"ipv4/conf/{name}/rp_filter", "2")
    with IPRoute() as ip:
        number = index(name)
        ip.link("set", index=number, mtu=settings["mtu"], txqlen=QUEUE_LENGTH)
        with _tolerate(errno.EEXIST):
            ip.addr("add", index=number, address=settings["tun_address"], prefixlen=32)
        ip.link("set", index=number, state="up")
    return fd, offloads


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


def set_routes(interface: str, desired: Iterable[str]) -> None:
    """Make `desired` the prefixes that lead to the WireGuard interface; only our own routes are touched."""
    number = index(interface)
    want = set(desired)
    with IPRoute() as ip:
        have = {
            f"{route.get_attr('RTA_DST')}/{route['dst_len']}"
            for family in _FAMILIES
            for route in ip.get_routes(family=family, oif=number, proto=ROUTE_PROTOCOL, table=254)
        }
        for prefix in sorted(have - want):
            with _tolerate(errno.ESRCH):
                ip.route("del", dst=prefix, oif=number, proto=ROUTE_PROTOCOL)
        for prefix in sorted(want - have):
            ip.route("replace", dst=prefix, oif=number, proto=ROUTE_PROTOCOL)


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

    def look(self, noted: Iterable[str]) -> None:
        """Find out what is off, and believe an earlier agent's note of what was."""
        off = {family for family, name in self._FILES.items() if self._read(name) == "0"}
        self.were_off = frozenset(off | (set(noted) & self._FILES.keys()))

    def enable(self) -> None:
        """Let this host forward packets."""
        for family in self.were_off:
            _sysctl(self._FILES[family], "1")

    def restore(self) -> None:
        """Put back what was off."""
        for family in self.were_off:
            _sysctl(self._FILES[family], "0")

    @staticmethod
    def _read(name: str) -> str | None:
        file = Path("/proc/sys/net") / name
        return file.read_text().strip() if file.exists() else None
