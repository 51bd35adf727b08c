"""The gateway's WireGuard interface: the kernel's own, else wireguard-go as a child that is kept alive."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate_agents import host, wireguard
from tidegate_agents.gateway import network
from tidegate_agents.gateway.processes import Child
from tidegate_agents.host import HostError, Places

# The first says what -f says, and keeps wireguard-go from printing a banner about kernel modules (its main.go).
_QUIET = {"WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error"}
_START_SECONDS = 10.0
_SOCKETS = Path("/var/run/wireguard")  # where wireguard-go offers its control sockets
_USERSPACE_PEERS = 65536  # wireguard-go's MaxPeers (device/constants.go)


class Device:
    """One WireGuard interface. It comes up after the rules and goes down before them: its owner sees to that."""

    def __init__(self, places: Places, settings: Mapping[str, Any]) -> None:
        self.name: str = settings["interface"]
        self._places = places
        self._settings = settings
        self.userspace: Child | None = None

    def refuse_foreign(self) -> None:
        """HostError when an interface of our name is there that is not ours: nothing of others' is touched."""
        if network.index(self.name) is not None:
            try:
                key = wireguard.run("show", self.name, "public-key").strip()
            except wireguard.WireGuardError:
                key = ""
            if key not in (host.public_key(self._places), "(none)"):
                raise HostError(
                    f"{self.name} is there and has not this gateway's key; "
                    f"remove it, or name another with 'interface' in {self._places.settings}"
                ) from None

    def ensure(self) -> None:
        """Make the interface when it is not there, and give it its key and port; an existing one is adopted."""
        if network.index(self.name) is None and not network.add_wireguard(self.name):
            self._start_userspace()
        port = self._settings["listen_port"]
        try:
            found = wireguard.identity(self.name)
            if found == (host.public_key(self._places), port):
                return  # to set a port anew, even to what it is, is to bind it anew
            wireguard.run("set", self.name, "listen-port", str(port), "private-key", str(self._places.key))
        except wireguard.WireGuardError as error:
            raise HostError(f"{self.name} does not take its key and port: {error}") from None

    def room_for(self, peers: int) -> None:
        """HostError when the device cannot hold so many peers."""
        if peers > _USERSPACE_PEERS and (_SOCKETS / f"{self.name}.sock").exists():
            raise HostError(
                f"the release has {peers} peers, and wireguard-go holds {_USERSPACE_PEERS} at most: "
                "use a kernel with WireGuard, or spread the clients over more gateways"
            )

    def lost(self) -> bool:
        """Tell whether the interface, or the process behind it, is gone."""
        return network.index(self.name) is None or (self.userspace is not None and self.userspace.ended())

    def has_died(self) -> bool:
        """Tell whether the process behind the interface has ended, which nobody did to the kernel."""
        return self.userspace is not None and self.userspace.ended()

    def up(self) -> None:
        """Let it carry packets."""
        network.leave_sources_to_wireguard(self.name)
        network.bring_up(self.name, self._settings["mtu"])

    def down(self) -> None:
        """Stop carrying packets, at once and for good."""
        network.take_down(self.name)
        if self.userspace is not None:
            self.userspace.stop()
            self.userspace.close()
            self.userspace = None
        network.delete(self.name)

    def _start_userspace(self) -> None:
        if shutil.which("wireguard-go") is None:
            raise HostError(
                "this kernel has no WireGuard and wireguard-go is missing: apt install wireguard-go"
            )
        if self.userspace is not None:
            self.userspace.stop()
            self.userspace.close()
        self.userspace = Child(["wireguard-go", "-f", self.name], environment=_QUIET)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                wireguard.run("show", self.name)
            except wireguard.WireGuardError as error:
                if self.userspace.ended() or time.monotonic() > deadline:
                    raise HostError(f"wireguard-go did not bring {self.name}: {error}") from None
                time.sleep(0.02)  # it offers nothing to wait on; this polls for its control socket
            else:
                return
