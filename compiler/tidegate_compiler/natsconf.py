"""What a nats-server has to be told, so that a host reads its own releases and nothing else, and only one user writes.

Two accounts for a fleet: releases live in the publisher's, and hosts are in the other, which imports two things of it:
asking for the last message of a subject, and hearing that a pointer was published. Within one account permissions would
not do: the server checks what a user publishes to, but not the reply subject of a request, so that an answer could be
led into the stream as another host's release.

A user is the DNS name in its certificate (`verify_and_map`): <host>.<kind>.<fleet>, and publisher.<fleet>.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from tidegate_schema.jetstream import layout

PUBLISHER = "publisher"


def user(fleet: str, kind: str, host: str) -> str:
    """Return the DNS name that a host's certificate has to carry."""
    return f"{host}.{kind}.{fleet}"


def publisher(fleet: str) -> str:
    """Return the DNS name of the publisher's certificate."""
    return f"{PUBLISHER}.{fleet}"


def accounts(fleet: str, hosts: Iterable[tuple[str, str]]) -> str:
    """Return the `accounts` block of nats-server.conf for these (kind, host)."""
    stream = layout.stream(fleet)
    theirs = f"{stream}-hosts"
    asking, hearing = layout.direct_get(fleet, ">"), f"tidegate.{fleet}.*.*.current"
    lines = [
        f"# Who may do what with the releases of the fleet {fleet}; made by 'tidegate nats permissions'.",
        "accounts {",
        f"  {_quoted(stream)}: {{",
        "    jetstream: enabled",
        "    users: [",
        f"      {_user(publisher(fleet), _publishing(fleet), [f'{layout.PUBLISHER_INBOX}.>'])}",
        "    ]",
        "    exports: [",
        f"      {{ service: {_quoted(asking)}, accounts: [{_quoted(theirs)}] }}",
        f"      {{ stream: {_quoted(hearing)}, accounts: [{_quoted(theirs)}] }}",
        "    ]",
        "  }",
        f"  {_quoted(theirs)}: {{",
        "    users: [",
        *(f"      {_host(fleet, kind, host)}" for kind, host in sorted(hosts)),
        "    ]",
        "    imports: [",
        f"      {{ service: {{ account: {_quoted(stream)}, subject: {_quoted(asking)} }} }}",
        f"      {{ stream: {{ account: {_quoted(stream)}, subject: {_quoted(hearing)} }} }}",
        "    ]",
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _publishing(fleet: str) -> list[str]:
    requests = [f"$JS.API.{name}.{layout.stream(fleet)}" for name in layout.PARTS_OF_PUBLISHER]
    return [layout.of_fleet(fleet), *requests]


def _host(fleet: str, kind: str, host: str) -> str:
    of_host = layout.of_host(fleet, kind, host)
    return _user(
        user(fleet, kind, host),
        [layout.direct_get(fleet, f"{of_host}.current"), layout.direct_get(fleet, f"{of_host}.part.*")],
        [layout.pointer(fleet, kind, host), f"{layout.inbox(kind, host)}.>"],
    )


def _user(name: str, publish: list[str], subscribe: list[str]) -> str:
    return f"{{ user: {_quoted(name)}, permissions: {{ publish: {_list(publish)}, subscribe: {_list(subscribe)} }} }}"


def _list(subjects: list[str]) -> str:
    return f"[{', '.join(map(_quoted, subjects))}]"


def _quoted(text: str) -> str:
    # Names hold a-z, 0-9 and - alone; quoted all the same, and so that $ begins no variable.
    return json.dumps(text)
