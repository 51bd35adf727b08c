"""What an operation of the API is: the one table that routes, the OpenAPI document and the tests are made from.

    Operation --routes--> Starlette      --openapi--> the document      --tests--> every scope, every error

An operation cannot be made without a scope, and its handler runs only after the caller was found to have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from tidegate_control.access.caller import Caller
from tidegate_control.api.bodies import JSON
from tidegate_control.api.made import Made
from tidegate_control.inventory.model import Author

if TYPE_CHECKING:  # the application is made of rooms, this one among them
    from tidegate_control.app import Services

PREFIX = "/api/v1"
Schema: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Parameter:
    """A query parameter and its JSON Schema, of which `parameters` checks what it says; an array is repeated."""

    name: str
    description: str
    schema: Schema
    required: bool = False


@dataclass(frozen=True)
class Body:
    """What a request carries: its schema, and the media type it must say."""

    schema: Schema
    media_type: str = JSON


@dataclass(frozen=True)
class Reply:
    """What an operation answers when all is well. `headers` are names with descriptions."""

    description: str
    schema: Schema | None = None
    status: int = 200
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A request after the checks that are the same for all: the caller may, parameters and body are well formed."""

    services: Services
    made: Made
    caller: Caller
    path: Mapping[str, str]
    query: Mapping[str, Any]
    headers: Mapping[str, str]
    body: Any = None

    @property
    def author(self) -> Author:
        """Return who a commit of this call is by."""
        return Author(self.caller.name, self.caller.email)


@dataclass(frozen=True)
class Answer:
    """What is sent back: a JSON value, or bytes of another media type, whole or in pieces. `commit` is the ETag."""

    body: Any = None
    status: int = 200
    commit: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = JSON
    pieces: Iterable[bytes] | None = None


@dataclass(frozen=True, eq=False)
class Operation:
    """One method of one path below PREFIX. `is_conditional`: it reads the inventory and, without `at`, nothing else, so
    that If-None-Match may spare the answer; `takes_match`: If-Match says which inventory its writer has seen.
    `is_costly`: it computes much, so `costly` bounds how many are answered at once, and remembers the answers.
    `problems` are further statuses that it has a use of its own for.
    """

    method: str
    path: str
    id: str
    tag: str
    summary: str
    scope: str
    handler: Callable[[Call], Answer]
    reply: Reply
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    also: tuple[Reply, ...] = ()
    is_conditional: bool = False
    is_costly: bool = False
    takes_match: bool = False
    problems: tuple[int, ...] = ()
