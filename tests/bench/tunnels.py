"""A crossing whose client comes in through a tunnel, wireguard-go's or Nebula's, of the same addresses and MTU.

    client 10.64.0.11 ══ tunnel ══ 10.64.0.1   gateway   lan0 ── service 10.20.0.80
           192.0.2.11 ── eth0    wan0 ── 192.0.2.1

Each measurement starts its tunnel and ends it, so that nothing else runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.crossing import Crossing
from bench.flood import DESTINATION, PORT, SOURCE
from netns.lab import Host, sh, until

WIREGUARD, NEBULA = "wireguard", "nebula"
LINK = "tunnel0"
UNDERLAY_PORT = 51820
NETWORK = "10.20.0.0/16"


class End(NamedTuple):
    """One end of the tunnel: its host, and its addresses in the tunnel and outside."""

    name: str
    host: Host
    inner: str
    outer: str


class Tunnels(Crossing):
    """The three hosts with a tunnel between the first two."""

    link = LINK
    mtu = 1420

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.ends = (
            End("client", self.client, SOURCE, "192.0.2.11"),
            End("gateway", self.gateway, "10.64.0.1", "192.0.2.1"),
        )
        for end, link in zip(self.ends, ("eth0", "wan0"), strict=True):
            end.host.sh("ip", "address", "add", f"{end.outer}/24", "dev", link)
        self._make_certificates()

    def lead_in(self) -> None:
        """Leave the client without a way: the tunnels are its ways."""

    def through(self, tunnel: str, settings: tuple[str, ...], task: Callable[[], float]) -> float:
        """Measure across a gateway behind a tunnel."""
        up = self._wireguard() if tunnel == WIREGUARD else self._nebula()
        with up, self.as_gateway(settings):
            before, send = self.seen(), ("bash", "-c", f"echo >/dev/udp/{DESTINATION}/{PORT}")
            until("packets pass the tunnel", lambda: self.client.ok(*send) and self.seen() > before)
            return task()

    @contextmanager
    def _running(self, commands: list[tuple[Host, list[str]]]) -> Iterator[None]:
        """Run a process on each end, until its link is there and until the measurement is over."""
        environment = {**os.environ, "WG_PROCESS_FOREGROUND": "1", "LOG_LEVEL": "error"}
        processes = [host.start(*command, env=environment) for host, command in commands]
        try:
            for host, _ in commands:
                until(f"{host.name} has {LINK}", lambda host=host: host.ok("ip", "link", "show", LINK))  # type: ignore[misc]
            yield
        finally:
            for process in processes:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()

    @contextmanager
    def _wireguard(self) -> Iterator[None]:
        keys = {end.name: sh("wg", "genkey") for end in self.ends}
        public = {name: sh("wg", "pubkey", text=key).strip() for name, key in keys.items()}
        with self._running([(end.host, ["wireguard-go", "-f", LINK]) for end in self.ends]):
            for end, far in zip(self.ends, reversed(self.ends), strict=True):
                until("wireguard-go answers", lambda end=end: end.host.ok("wg", "show", LINK))  # type: ignore[misc]
                allowed = f"{far.inner}/32" + (f",{NETWORK}" if far.name == "gateway" else "")
                end.host.sh(
                    *("wg", "set", LINK, "private-key", "/dev/stdin", "listen-port", str(UNDERLAY_PORT)),
                    *("peer", public[far.name], "allowed-ips", allowed),
                    *("endpoint", f"{far.outer}:{UNDERLAY_PORT}"),
                    text=keys[end.name],
                )
                end.host.sh("ip", "address", "add", f"{end.inner}/15", "dev", LINK)
                end.host.sh("ip", "link", "set", LINK, "mtu", str(self.mtu), "up")
            self.client.sh("ip", "route", "add", NETWORK, "dev", LINK)
            yield

    @contextmanager
    def _nebula(self) -> Iterator[None]:
        commands = []
        for end, far in zip(self.ends, reversed(self.ends), strict=True):
            config = self.directory / f"{end.name}.nebula.yml"
            config.write_text(json.dumps(self._nebula_config(end, far)))  # JSON is YAML
            commands.append((end.host, ["nebula", "-config", str(config)]))
        with self._running(commands):
            yield

    def _make_certificates(self) -> None:
        def cert(*words: str) -> None:
            subprocess.run(["nebula-cert", *words], cwd=self.directory, check=True)

        cert("ca", "-name", "bench")
        for end in self.ends:
            behind = ("-subnets", NETWORK) if end.name == "gateway" else ()
            cert("sign", "-name", end.name, "-ip", f"{end.inner}/15", *behind)

    def _nebula_config(self, end: End, far: End) -> dict[str, Any]:
        """Return what is as by default, but for the way to each other, the MTU, and Tidegate's rule as a firewall's."""
        pki = {"ca": "ca.crt", "cert": f"{end.name}.crt", "key": f"{end.name}.key"}
        away = [] if end.name == "gateway" else [{"route": NETWORK, "via": far.inner, "mtu": self.mtu}]
        allowed = {"udp": (9, 7), "tcp": (5201,)}  # as bench.gateway.policy
        return {
            "pki": {name: str(self.directory / file) for name, file in pki.items()},
            "static_host_map": {far.inner: [f"{far.outer}:{UNDERLAY_PORT}"]},
            "lighthouse": {"am_lighthouse": False},
            "listen": {"host": "0.0.0.0", "port": UNDERLAY_PORT},
            "tun": {"dev": LINK, "mtu": self.mtu, "unsafe_routes": away},
            "logging": {"level": "error"},
            "firewall": {
                "outbound": [{"port": "any", "proto": "any", "host": "any"}],
                "inbound": [
                    {"port": port, "proto": protocol, "host": "client"}
                    for protocol, ports in allowed.items()
                    for port in ports
                    if end.name == "gateway"
                ],
            },
        }
