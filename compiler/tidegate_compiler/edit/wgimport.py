"""wg-quick files to an inventory: gateways, clients and an overlay; no policy, so that default deny stays.

A file with a ListenPort in which some [Peer] has no Endpoint is a gateway's; one in which every [Peer] has an Endpoint
is a client's. The two complete each other: a gateway's file knows the clients' public keys, a client's file the
gateway's public key, endpoint and networks. They are matched by the client's address. No private key is used for it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from tidegate_compiler import fields
from tidegate_compiler.diagnostics import show, show_path
from tidegate_compiler.edit.allocate import cover
from tidegate_compiler.edit.imported import Client, Gateway, Given, Imported, render
from tidegate_compiler.edit.wgread import Config, NotConfigError, Section, Value, read
from tidegate_compiler.model import Network
from tidegate_compiler.networks import contains, intersect
from tidegate_schema.names import is_name

_LEAST = {4: 24, 6: 64}  # an overlay that is guessed is at least this wide
_INTERFACE = re.compile(r"\s*([0-9a-fA-F:.]{2,45})(/[0-9]{1,3})?")


@dataclass
class _Server:
    """A gateway's file with its peers: address to section."""

    file: str
    gateway: Gateway
    config: Config
    candidates: set[str] | None = None  # the public keys that may be its own


def convert(sources: Sequence[tuple[str, bytes]], given: Given) -> Imported:
    """Turn (path, bytes) of wg-quick files into an inventory. Never raises."""
    return _Import(given).run(sources)


class _Import:
    def __init__(self, given: Given) -> None:
        self._given = given
        self._left: list[tuple[str, int, str]] = []
        self._missing: list[str] = []
        self._names: dict[str, set[str]] = {"gateway": set(), "client": set()}
        self._gateways: list[Gateway] = []
        self._by_key: dict[str, Gateway] = {}
        self._clients: list[Client] = []
        self._guesses: list[Network] = []

    def run(self, sources: Sequence[tuple[str, bytes]]) -> Imported:
        servers: list[_Server] = []
        hosts: list[tuple[str, Config]] = []
        for file, data in sources:
            try:
                config = read(data)
            except NotConfigError as error:
                self._out(file, 1, str(error))
                continue
            self._tell(file, config)
            if _is_server(config):
                servers.append(self._server(file, config))
            elif (
                config.interface is not None and config.peers and all(p.one("endpoint") for p in config.peers)
            ):
                hosts.append((file, config))
            else:
                self._out(
                    file,
                    1,
                    "neither a gateway's file (ListenPort, and peers without Endpoint) nor a client's (every peer with "
                    "Endpoint); left out",
                )
        found = [(file, config, self._own(file, config)) for file, config in hosts]
        self._match(servers, found)
        by_address = self._peers(servers, found)
        for file, config, own in found:
            self._host(file, config, own, by_address)
        overlay = self._overlay()
        self._networks(overlay)
        self._complete()
        return Imported(
            render(self._given, self._gateways, self._clients, overlay),
            tuple(self._lines()),
            tuple(self._missing),
        )

    # Files ----------------------------------------------------------------------------------------------------------

    def _tell(self, file: str, config: Config) -> None:
        for line, key in config.secrets:
            which = "private" if key == "PrivateKey" else "preshared"
            self._out(
                file,
                line,
                f"a {which} key: left out, it is copied nowhere"
                + (
                    " and stays on its host"
                    if which == "private"
                    else "; WireGuard works without, on both sides"
                ),
            )
        for line, key in config.others:
            self._out(file, line, f"{key} is not imported: {_WHY.get(key, 'a local setting of its host')}")
        for line in config.strange:
            self._out(file, line, "not a line of a wg-quick file that is understood; left out")

    def _server(self, file: str, config: Config) -> _Server:
        assert config.interface is not None
        gateway = self._gateway(config.interface.label or PurePath(file).stem)
        port = config.interface.one("listenport")
        if port is not None and re.fullmatch(r"[0-9]{1,5}", port.text):
            gateway.port = int(port.text)
        for value in config.interface.all("address"):
            self._address(file, value)
        return _Server(file, gateway, config)

    def _gateway(self, label: str) -> Gateway:
        gateway = Gateway(self._name("gateway", label))
        self._gateways.append(gateway)
        return gateway

    def _own(self, file: str, config: Config) -> list[Network]:
        """Return a client's own addresses, each as one host."""
        assert config.interface is not None
        found = [self._address(file, value) for value in config.interface.all("address")]
        return [address for address in found if address is not None]

    def _address(self, file: str, value: Value) -> Network | None:
        """Read an interface's address; what its prefix covers is a guess at the overlay."""
        match = _INTERFACE.fullmatch(value.text)
        try:
            if match is None:
                raise ValueError
            interface = ipaddress.ip_interface(value.text)
            host = fields.host(f"{interface.ip}/{interface.max_prefixlen}")
        except ValueError:
            self._out(file, value.line, f"Address {show(value.text)}: no IP address; left out")
            return None
        if interface.network.prefixlen < interface.network.max_prefixlen:
            self._guesses.append(interface.network)
        return host

    # Matching -------------------------------------------------------------------------------------------------------

    def _match(self, servers: Sequence[_Server], found: Sequence[tuple[str, Config, list[Network]]]) -> None:
        """Find each server's own public key in the files of its clients."""
        holders: dict[Network, list[_Server]] = {}
        for server in servers:
            told = self._given.keys.get(server.gateway.name)
            if told is not None:
                server.gateway.key = told
                self._by_key[told] = server.gateway
            for peer in server.config.peers:
                for address in _hosts(peer):
                    holders.setdefault(address, []).append(server)
        ports: dict[str, set[int]] = {}
        for _, config, own in found:
            keys = {key for peer in config.peers if (key := _key(peer)) is not None}
            for peer in config.peers:
                key, endpoint = _key(peer), peer.one("endpoint")
                port = endpoint.text.rpartition(":")[2] if endpoint else ""
                if key is not None and re.fullmatch(r"[0-9]{1,5}", port):
                    ports.setdefault(key, set()).add(int(port))
            for server in {id(s): s for address in own for s in holders.get(address, [])}.values():
                server.candidates = keys if server.candidates is None else server.candidates & keys
        unknown = [server for server in servers if server.gateway.key is None]
        while unknown:
            decided = next(((s, k) for s in unknown if (k := self._decided(s, ports)) is not None), None)
            if decided is None:
                break
            server, key = decided
            server.gateway.key = key
            self._by_key[key] = server.gateway
            unknown.remove(server)
        for server in unknown:
            if server.candidates:
                self._out(server.file, 1, "which of its clients' peers this gateway is cannot be told")

    def _decided(self, server: _Server, ports: Mapping[str, set[int]]) -> str | None:
        left = {key for key in server.candidates or () if key not in self._by_key}
        if len(left) > 1 and server.gateway.port is not None:
            left = {key for key in left if server.gateway.port in ports.get(key, set())}
        return left.pop() if len(left) == 1 else None

    def _peers(
        self, servers: Sequence[_Server], found: Sequence[tuple[str, Config, list[Network]]]
    ) -> dict[Network, Client]:
        """Make a client of every peer that servers know; return them by address."""
        labels = {
            address: (config.interface.label if config.interface else "") or PurePath(file).stem
            for file, config, own in found
            for address in own
        }
        by_key: dict[str, Client] = {}
        by_address: dict[Network, Client] = {}
        for server in servers:
            for peer in server.config.peers:
                key = self._public_key(server.file, peer)
                addresses = self._peer_addresses(server.file, peer)
                if key is None or not addresses:
                    continue
                client = by_key.get(key)
                if client is None:
                    label = next((labels[a] for a in addresses if a in labels), "") or peer.label
                    client = Client(
                        self._name("client", label or f"client-{addresses[0].network_address}"), key
                    )
                    by_key[key] = client
                    self._clients.append(client)
                client.addresses += [a for a in addresses if a not in client.addresses]
                if server.gateway not in client.gateways:
                    client.gateways.append(server.gateway)
                for address in addresses:
                    by_address.setdefault(address, client)
        return by_address

    def _public_key(self, file: str, peer: Section) -> str | None:
        key = _key(peer)
        if key is None:
            value = peer.one("publickey")
            reason = "no PublicKey" if value is None else "PublicKey is no WireGuard public key"
            self._out(file, value.line if value else peer.line, f"[Peer] left out: {reason}")
        return key

    def _peer_addresses(self, file: str, peer: Section) -> list[Network]:
        for value in peer.all("allowedips"):
            network = _network(value.text)
            if network is None or network.prefixlen < network.max_prefixlen:
                self._out(
                    file,
                    value.line,
                    f"AllowedIPs {show(value.text)}: a network behind a client is not in this version; left out",
                )
        found = list(_hosts(peer))
        if not found:
            self._out(
                file, peer.line, "[Peer] left out: it has no address of its own (a /32 or /128) in AllowedIPs"
            )
        return found

    def _host(
        self, file: str, config: Config, own: Sequence[Network], by_address: Mapping[Network, Client]
    ) -> None:
        """Take from a client's file its gateways, and for a new client what it is."""
        assert config.interface is not None
        gateways = [g for peer in config.peers if (g := self._peer_gateway(file, peer)) is not None]
        client = next((by_address[address] for address in own if address in by_address), None)
        if client is None:
            if not own:
                self._out(file, config.interface.line, "the client is left out: it has no Address")
                return
            client = Client(self._name("client", config.interface.label or PurePath(file).stem))
            self._clients.append(client)
        client.addresses += [a for a in own if a not in client.addresses]
        # The client's own order is the order of preference.
        client.gateways = _unique([*gateways, *client.gateways])

    def _peer_gateway(self, file: str, peer: Section) -> Gateway | None:
        key = self._public_key(file, peer)
        if key is None:
            return None
        gateway = self._by_key.get(key)
        if gateway is None:
            gateway = self._gateway(peer.label or f"gw{len(self._gateways) + 1}")
            gateway.key = key
            self._by_key[key] = gateway
        endpoint = peer.one("endpoint")
        if endpoint is not None:
            self._endpoint(file, endpoint, gateway)
        for value in peer.all("allowedips"):
            network = _network(value.text)
            if network is None:
                self._out(file, value.line, f"AllowedIPs {show(value.text)}: no IP prefix; left out")
            elif network.prefixlen == 0:
                self._out(
                    file,
                    value.line,
                    f"AllowedIPs {network}: a tunnel for everything is not in this version; "
                    f"name what lies behind the gateway with --network {gateway.name}=PREFIX",
                )
            elif network not in gateway.networks:
                gateway.networks.append(network)
                gateway.places[network] = (file, value.line)
        return gateway

    def _endpoint(self, file: str, value: Value, gateway: Gateway) -> None:
        try:
            text = fields.endpoint(value.text).text
        except fields.FieldError:
            self._out(
                file,
                value.line,
                f"Endpoint {show(value.text)}: no IP:port, and names are not looked up; "
                f"say it with --endpoint {gateway.name}=IP:PORT",
            )
            return
        if gateway.endpoint is None:
            gateway.endpoint = text
        elif gateway.endpoint != text:
            self._out(
                file,
                value.line,
                f"Endpoint {text}: gateway {gateway.name} has {gateway.endpoint} from another file",
            )

    # What comes out -------------------------------------------------------------------------------------------------

    def _overlay(self) -> tuple[Network, ...]:
        """Guess the overlay: what interfaces' prefixes say, and around addresses outside them the least width."""
        if self._given.overlay:
            return self._given.overlay
        addresses = [address for client in self._clients for address in client.addresses]
        inside = [g for g in cover(self._guesses) if any(contains(g, address) for address in addresses)]
        lone = [address for address in addresses if not any(contains(g, address) for g in inside)]
        around = [a.supernet(new_prefix=min(_LEAST[a.version], a.prefixlen)) for a in lone]
        return cover([*inside, *around])

    def _networks(self, overlay: Sequence[Network]) -> None:
        for gateway in self._gateways:
            kept = []
            for network in gateway.networks:
                if any(intersect(network, prefix) for prefix in overlay):
                    file, line = gateway.places[network]
                    self._out(
                        file,
                        line,
                        f"AllowedIPs {network} overlaps the overlay, which is the clients' alone; "
                        f"left out of the networks of gateway {gateway.name}",
                    )
                else:
                    kept.append(network)
            gateway.networks = list(cover([*kept, *self._given.networks.get(gateway.name, ())]))

    def _complete(self) -> None:
        """Add what the user gives, and name what is missing still."""
        known = {"gateway": {g.name for g in self._gateways}, "client": {c.name for c in self._clients}}
        for option, names, kinds in (
            ("--public-key", self._given.keys, ("gateway", "client")),
            ("--endpoint", self._given.endpoints, ("gateway",)),
            ("--network", self._given.networks, ("gateway",)),
        ):
            for name in names:
                if not any(name in known[kind] for kind in kinds):
                    self._missing.append(f"{option} names {show(name)}, which no file gave")
        for gateway in self._gateways:
            gateway.key = self._given.keys.get(gateway.name, gateway.key)
            gateway.endpoint = self._given.endpoints.get(gateway.name, gateway.endpoint)
            for what, option, how in (
                (gateway.key, "public-key", "KEY; 'wg show INTERFACE public-key' on its host prints it"),
                (gateway.endpoint, "endpoint", "IP:PORT"),
                (gateway.networks, "network", "PREFIX, what lies behind it"),
            ):
                if not what:
                    noun = option.replace("-", " ") + ("s" if option == "network" else "")
                    self._missing.append(
                        f"gateway {gateway.name} has no {noun}: say it with --{option} {gateway.name}={how}"
                    )
        for client in self._clients:
            client.key = self._given.keys.get(client.name, client.key)
            if client.key is None:
                self._missing.append(
                    f"client {client.name} has no public key (no gateway's file knows it): say it with "
                    f"--public-key {client.name}=KEY; 'wg show INTERFACE public-key' on its host prints it"
                )
        if not self._clients:
            self._missing.append(
                "there is no client in these files, so no overlay: say it with --overlay PREFIX"
            )

    # Words ----------------------------------------------------------------------------------------------------------

    def _name(self, kind: str, label: str) -> str:
        """Make a legal name of a label, unique among its kind: the second `x` is `x-2`."""
        plain = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:58].strip("-") or kind
        names = self._names[kind]
        name = plain
        number = 1
        while name in names:
            number += 1
            name = f"{plain[: 62 - len(str(number))]}-{number}"
        assert is_name(name)
        names.add(name)
        return name

    def _out(self, file: str, line: int, message: str) -> None:
        self._left.append((file, line, message))

    def _lines(self) -> Iterator[str]:
        seen: set[tuple[str, int, str]] = set()
        for file, line, message in self._left:
            if (file, line, message) not in seen:
                seen.add((file, line, message))
                yield f"{show_path(file)}:{line}: {message}" if line else f"{show_path(file)}: {message}"


_WHY = {
    **dict.fromkeys(("PreUp", "PostUp", "PreDown", "PostDown"), "a bundle is data, never commands"),
    "DNS": "name resolution is out of scope",
}


def _is_server(config: Config) -> bool:
    has_port = config.interface is not None and config.interface.one("listenport") is not None
    return has_port and (not config.peers or any(peer.one("endpoint") is None for peer in config.peers))


def _key(peer: Section) -> str | None:
    value = peer.one("publickey")
    if value is None:
        return None
    try:
        fields.public_key(value.text)
    except fields.FieldError:
        return None
    return value.text


def _network(text: str) -> Network | None:
    """Read a prefix as wg(8) does: a bare address is one host, and host bits are dropped."""
    if _INTERFACE.fullmatch(text) is None:
        return None
    try:
        return fields.network(str(ipaddress.ip_network(text, strict=False)))
    except ValueError:
        return None


def _hosts(peer: Section) -> Iterator[Network]:
    for value in peer.all("allowedips"):
        network = _network(value.text)
        if network is not None and network.prefixlen == network.max_prefixlen:
            yield network


def _unique(gateways: Iterable[Gateway]) -> list[Gateway]:
    return list({id(gateway): gateway for gateway in gateways}.values())
