"""What an import makes: gateways, clients, and the inventory that says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidegate_compiler.edit.writing import Fields, Style, in_block, word
from tidegate_compiler.model import Network


@dataclass(frozen=True)
class Given:
    """What the user adds by hand: the overlay, and by name keys, endpoints and networks."""

    fleet: str | None = None
    overlay: tuple[Network, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    endpoints: Mapping[str, str] = field(default_factory=dict)
    networks: Mapping[str, tuple[Network, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """The inventory, what of the files is not in it (one line each), and what is still missing."""

    files: Mapping[str, bytes]
    left_out: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass
class Gateway:
    """A gateway as far as the files know it; `places` are where its networks were read, `port` its ListenPort."""

    name: str
    key: str | None = None
    endpoint: str | None = None
    networks: list[Network] = field(default_factory=list)
    places: dict[Network, tuple[str, int]] = field(default_factory=dict)
    port: int | None = None


@dataclass
class Client:
    """A client as far as the files know it, its gateways in its own order."""

    name: str
    key: str | None = None
    addresses: list[Network] = field(default_factory=list)
    gateways: list[Gateway] = field(default_factory=list)


def render(
    given: Given, gateways: Sequence[Gateway], clients: Sequence[Client], overlay: Sequence[Network]
) -> dict[str, bytes]:
    """Return the files of the inventory."""
    top: dict[str, str | list[str]] = {"fleet": given.fleet} if given.fleet else {}
    top["prefixes"] = [str(prefix) for prefix in overlay]
    files = {"overlay.yaml": _yaml([("overlay", top)])}
    of_gateways: list[tuple[str, Fields]] = [
        (
            gateway.name,
            _present(
                public_key=gateway.key,
                endpoint=gateway.endpoint,
                networks=[str(n) for n in gateway.networks],
            ),
        )
        for gateway in sorted(gateways, key=lambda g: g.name)
    ]
    of_clients: list[tuple[str, Fields]] = [
        (
            client.name,
            _present(
                public_key=client.key,
                addresses=[str(a) for a in client.addresses],
                gateways=[g.name for g in client.gateways],
            ),
        )
        for client in sorted(clients, key=lambda c: c.name)
    ]
    if gateways:
        files["gateways/imported.yaml"] = _yaml(of_gateways)
    if clients:
        files["clients/imported.yaml"] = _yaml(of_clients)
    return files


def _present(**fields_: str | list[str] | None) -> dict[str, str | list[str]]:
    return {key: value for key, value in fields_.items() if value}


def _yaml(objects: Sequence[tuple[str, Fields]]) -> bytes:
    blocks = []
    for name, values in objects:
        lines = [f"{word(name)}:" if values else f"{word(name)}: {{}}", *in_block(values, Style(), 2)]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks).encode()
