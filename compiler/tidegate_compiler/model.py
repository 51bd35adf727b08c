"""The inventory as values: what `check` makes from documents and every later step reads.

Each object remembers where it stands. An object made while `check` still looks for problems may be broken:
then `broken` names the fields that could not be read and hold a neutral value. `check` hands on only
inventories in which nothing is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from tidegate_compiler.diagnostics import Where
from tidegate_compiler.times import Window

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
T = TypeVar("T")

ClientRow: TypeAlias = tuple[bytes, tuple[bytes, ...], tuple[str, ...]]
"""A client's raw public key (b"" when it could not be read), its addresses as written, 4 or 16 bytes each in network
order, and its gateways."""
VERSIONS = {4: 4, 16: 6}
"""The IP version of an address by its length in bytes."""
GroupRow: TypeAlias = tuple[tuple[str, ...], Mapping[str, int], Mapping[str, int]]
"""A group's members, and the Unix seconds at which the memberships of some of them begin and end."""

ALL_CLIENTS = "all-clients"


class At(NamedTuple, Generic[T]):
    """A value and where it stands."""

    value: T
    where: Where


class Lazily(Mapping[str, T]):
    """Objects by name that are made when somebody asks for one: of clients there may be a hundred thousand."""

    def __init__(
        self,
        rows: Mapping[str, Any],
        make: Callable[[str], T],
        made: Mapping[str, T],
        place: Callable[[str], Where] | None = None,
    ) -> None:
        """Hold an object for each name in `rows`, in that order: one of `made`, or else what `make` returns.

        `place`, if known, tells where one stands without making it.
        """
        self.rows = rows
        self.place = place
        self._make = make
        self.made = dict(made)

    def __getitem__(self, name: str) -> T:
        """Return the object, the same at every call."""
        made = self.made.get(name)
        if made is None:
            if name not in self.rows:
                raise KeyError(name)
            made = self.made[name] = self._make(name)
        return made

    def __contains__(self, name: object) -> bool:
        """Tell whether there is one of that name."""
        return name in self.rows

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self.rows)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.rows)


@dataclass(frozen=True)
class Endpoint:
    """Where clients reach a gateway; `text` is the canonical written form."""

    address: Address
    text: str


@dataclass(frozen=True)
class Overlay:
    """The fleet's name and the address space of its clients."""

    fleet: str
    prefixes: tuple[At[Network], ...]


@dataclass(frozen=True)
class Gateway:
    """A WireGuard server and the networks behind it."""

    name: str
    where: Where
    public_key: At[bytes]
    endpoint: At[Endpoint] | None
    networks: tuple[At[Network], ...]
    broken: frozenset[str] = frozenset()

    @cached_property
    def network_set(self) -> frozenset[Network]:
        """Return the networks; gateways with equal sets are failover alternatives."""
        return frozenset(network.value for network in self.networks)


@dataclass(frozen=True)
class Client:
    """A host with a WireGuard client; `gateways` is in order of preference."""

    name: str
    where: Where
    public_key: At[bytes]
    addresses: tuple[At[Network], ...]
    gateways: tuple[At[str], ...]
    broken: frozenset[str] = frozenset()

    @cached_property
    def families(self) -> frozenset[int]:
        """Return the IP versions it has an address of."""
        return frozenset(address.value.version for address in self.addresses)

    @property
    def row(self) -> ClientRow:
        """Return its values alone."""
        return (
            self.public_key.value,
            tuple(address.value.network_address.packed for address in self.addresses),
            tuple(gateway.value for gateway in self.gateways),
        )


@dataclass(frozen=True)
class Group:
    """A set of clients, each with the window of its membership."""

    name: str
    where: Where
    members: tuple[At[str], ...]
    not_before: Mapping[str, At[int]]
    expires: Mapping[str, At[int]]
    broken: frozenset[str] = frozenset()

    def window(self, member: str) -> Window:
        """Return when the member is one."""
        begin, end = self.not_before.get(member), self.expires.get(member)
        return Window(begin.value if begin else None, end.value if end else None)

    @property
    def row(self) -> GroupRow:
        """Return its values alone."""
        return (
            tuple(member.value for member in self.members),
            {member: time.value for member, time in self.not_before.items()},
            {member: time.value for member, time in self.expires.items()},
        )


@dataclass(frozen=True)
class Resource:
    """Something that clients reach; `ports` None means that policies say the ports."""

    name: str
    where: Where
    addresses: tuple[At[Network], ...]
    ports: tuple[At[str], ...] | None
    broken: frozenset[str] = frozenset()


@dataclass(frozen=True)
class From:
    """A selector of clients: kind "client", "group" or ALL_CLIENTS."""

    kind: str
    name: str = ""


@dataclass(frozen=True)
class To:
    """A selector of destinations: a resource's name, or a prefix."""

    resource: str = ""
    prefix: Network | None = None


@dataclass(frozen=True)
class Policy:
    """Who may, or may not, reach what; `ports` None means that the resources say the ports."""

    name: str
    where: Where
    action: str
    sources: tuple[At[From], ...]
    destinations: tuple[At[To], ...]
    ports: tuple[At[str], ...] | None
    not_before: At[int] | None
    expires: At[int] | None
    broken: frozenset[str] = frozenset()

    @property
    def window(self) -> Window:
        """Return when it counts."""
        return Window(
            self.not_before.value if self.not_before else None, self.expires.value if self.expires else None
        )


@dataclass(frozen=True)
class AccessTest:
    """Packets and the verdict every one of them must get; `at` None is the moment of the run."""

    where: Where
    source: At[From]
    to: At[To]
    port: str
    expect: str
    at: int | None

    @property
    def destination(self) -> str:
        """Return the written form of `to`: a resource, a prefix, or the one address of a prefix that has one."""
        prefix = self.to.value.prefix
        if prefix is None:
            return f"resource:{self.to.value.resource}"
        return str(prefix.network_address if prefix.prefixlen == prefix.max_prefixlen else prefix)


@dataclass(frozen=True)
class Inventory:
    """Everything an inventory says, by name and in order of name."""

    overlay: Overlay
    gateways: Mapping[str, Gateway] = field(default_factory=dict)
    clients: Mapping[str, Client] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    resources: Mapping[str, Resource] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)
    tests: tuple[AccessTest, ...] = ()
    has_policy: bool = False
    """A gateway without policy and a gateway with an empty one differ: the first was never sent one."""

    @cached_property
    def client_rows(self) -> Mapping[str, ClientRow]:
        """Return the clients' values alone, in order of name: what goes through all of them reads these."""
        return _rows(self.clients)

    @cached_property
    def group_rows(self) -> Mapping[str, GroupRow]:
        """Return the groups' values alone, in order of name."""
        return _rows(self.groups)

    def group_place(self, name: str) -> Where:
        """Return where a group stands, without making what is not made: the largest has half of all clients."""
        if isinstance(self.groups, Lazily) and self.groups.place is not None:
            return self.groups.place(name)
        return self.groups[name].where


def _rows(objects: Mapping[str, Any]) -> Mapping[str, Any]:
    return objects.rows if isinstance(objects, Lazily) else {name: one.row for name, one in objects.items()}
