"""What an edit has to know of an inventory: every name and its place, the overlay, the addresses in use, references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tidegate_compiler import fields
from tidegate_compiler.check import Checked
from tidegate_compiler.diagnostics import Where, did_you_mean, show
from tidegate_compiler.edit.change import EditError, tree_of
from tidegate_compiler.edit.editor import Path
from tidegate_compiler.files import OVERLAY_FILE
from tidegate_compiler.model import Network
from tidegate_compiler.yamltree import Node

# kind as the command line has it: the directory
KINDS: Mapping[str, str] = {
    "gateway": "gateways",
    "client": "clients",
    "group": "groups",
    "resource": "resources",
    "policy": "policies",
    "test": "tests",
}
NAMED = tuple(kind for kind in KINDS if kind != "test")


@dataclass(frozen=True)
class Survey:
    """`places`: kind ("client") to name to place; `overlay`: its prefixes in order; `taken`: clients' addresses."""

    places: Mapping[str, Mapping[str, Where]]
    overlay: tuple[Network, ...]
    taken: frozenset[Network]

    def place(self, kind: str, name: str) -> Where:
        """Return where an object stands; EditError when there is none."""
        found = self.places[kind].get(name)
        if found is None:
            raise EditError(f"there is no {kind} {show(name)}{did_you_mean(name, self.places[kind])}")
        return found


def survey(files: Mapping[str, bytes], checked: Checked) -> Survey:
    """Look an inventory over: through its model, or file by file where errors leave it none."""
    model = checked.inventory
    if model is not None:
        return Survey(
            {kind: {n: o.where for n, o in getattr(model, KINDS[kind]).items()} for kind in NAMED},
            tuple(prefix.value for prefix in model.overlay.prefixes),
            frozenset(address.value for client in model.clients.values() for address in client.addresses),
        )
    places: dict[str, dict[str, Where]] = {kind: {} for kind in NAMED}
    taken: set[Network] = set()
    for kind in NAMED:
        for file in files_of(files, kind):
            for name, where, node in _objects(files, file):
                places[kind].setdefault(name, where)
                if kind == "client":
                    taken.update(_networks(_list(node, "addresses")))
    overlay = next(_objects(files, OVERLAY_FILE), None)
    return Survey(
        places, tuple(_networks(_list(overlay[2], "prefixes"))) if overlay else (), frozenset(taken)
    )


def files_of(files: Mapping[str, bytes], kind: str) -> list[str]:
    """Return the files of a kind in order."""
    return sorted(path for path in files if path.startswith(KINDS[kind] + "/"))


def _objects(files: Mapping[str, bytes], file: str) -> Iterator[tuple[str, Where, Node]]:
    try:
        tree = tree_of(files, file)
    except EditError:
        return  # what cannot be read has an error of its own
    if tree is not None and isinstance(tree.value, dict):
        for name, member in tree.value.items():
            yield name, Where(file, member.line, member.column), member.node


def _list(node: Node, field: str) -> list[Node]:
    member = node.value.get(field) if isinstance(node.value, dict) else None
    return member.node.value if member is not None and isinstance(member.node.value, list) else []


def _networks(nodes: list[Node]) -> Iterator[Network]:
    for node in nodes:
        try:
            if isinstance(node.value, str):
                yield fields.network(node.value)
        except fields.FieldError:
            continue  # reported by check


@dataclass(frozen=True)
class Reference:
    """A use of a name: the object that uses it (a test has its place in the file as name), and where.

    `path` leads to the entry inside its file; `siblings` counts the entries of its list, itself among them.
    """

    kind: str
    owner: str
    file: str
    path: Path
    where: Where
    siblings: int
    denies: bool = False


def references(files: Mapping[str, bytes], kind: str, name: str) -> Iterator[Reference]:
    """Yield every use of an object's name."""
    match kind:
        case "gateway":
            yield from _in_lists(files, "client", "gateways", name)
        case "client":
            yield from _in_lists(files, "group", "members", name)
            yield from _in_windows(files, name)
            yield from _in_lists(files, "policy", "from", f"client:{name}")
            yield from _in_tests(files, "from", f"client:{name}")
        case "group":
            yield from _in_lists(files, "policy", "from", f"group:{name}")
            yield from _in_tests(files, "from", f"group:{name}")
        case "resource":
            yield from _in_lists(files, "policy", "to", f"resource:{name}")
            yield from _in_tests(files, "to", f"resource:{name}")
        case _:
            return


def _holding(files: Mapping[str, bytes], kind: str, word: str) -> Iterator[str]:
    """Yield the files of a kind that hold a word at all: reading YAML is slow, and most do not."""
    wanted = word.rpartition(":")[2].encode()
    yield from (file for file in files_of(files, kind) if wanted in files[file])


def _in_lists(files: Mapping[str, bytes], kind: str, field: str, word: str) -> Iterator[Reference]:
    for file in _holding(files, kind, word):
        for owner, _, node in _objects(files, file):
            entries = _list(node, field)
            for index, entry in enumerate(entries):
                if entry.value == word:
                    where = Where(file, entry.line, entry.column)
                    yield Reference(
                        kind, owner, file, (owner, field, index), where, len(entries), _denies(node)
                    )


def _denies(node: Node) -> bool:
    action = node.value.get("action") if isinstance(node.value, dict) else None
    return action is not None and action.node.value == "deny"


def _in_windows(files: Mapping[str, bytes], name: str) -> Iterator[Reference]:
    for file in _holding(files, "group", name):
        for owner, _, node in _objects(files, file):
            for field in ("not_before", "expires"):
                member = node.value.get(field) if isinstance(node.value, dict) else None
                windows = member.node.value if member is not None else None
                if isinstance(windows, dict) and name in windows:
                    entry = windows[name]
                    where = Where(file, entry.line, entry.column)
                    yield Reference("group", owner, file, (owner, field, name), where, len(windows))


def _in_tests(files: Mapping[str, bytes], field: str, word: str) -> Iterator[Reference]:
    for file in _holding(files, "test", word):
        tree = tree_of(files, file)
        for index, node in enumerate(tree.value if tree is not None and isinstance(tree.value, list) else ()):
            member = node.value.get(field) if isinstance(node.value, dict) else None
            if member is not None and member.node.value == word:
                where = Where(file, node.line, node.column)
                yield Reference("test", f"{file}:{node.line}", file, (index,), where, 0)
