"""`tidegate inventory`: read, edit, judge the result, write once; print what was done."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from tidegate_compiler import fields, files, pipeline, report
from tidegate_compiler.check import Checked
from tidegate_compiler.diagnostics import Diagnostic, Where, has_errors, show, show_path
from tidegate_compiler.edit import add as adding
from tidegate_compiler.edit import remove as removing
from tidegate_compiler.edit import store, wgimport
from tidegate_compiler.edit.change import Change, EditError, diff, new_errors
from tidegate_compiler.edit.editor import LayoutError
from tidegate_compiler.edit.form import form
from tidegate_compiler.edit.survey import KINDS, Survey, survey
from tidegate_compiler.edit.yamlwords import Fields
from tidegate_compiler.load import load
from tidegate_compiler.model import Network
from tidegate_compiler.terminal import say
from tidegate_schema.cli import Failure

OK, PROBLEMS = 0, 1
_PATH = click.Path(path_type=Path)
_KEY_TOLD = 6
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def _reads(reader: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a callback that lets a value through only if the compiler's own reader takes it."""

    def check(_: click.Context, __: click.Parameter, value: Any) -> Any:
        for text in (value,) if isinstance(value, str) else value or ():
            try:
                reader(text)
            except fields.FieldError as error:
                # A mangled key may be a private one: only its beginning is told.
                told = show(text[:_KEY_TOLD] if error.code == "TG020" else text)
                raise click.BadParameter(f"{told}: {error}") from None
        return value

    return check


def _hosts(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Read clients' addresses; a bare one is a host."""
    full = tuple(f"{v}/{128 if ':' in v else 32}" if "/" not in v else v for v in value)
    _reads(fields.host)(context, parameter, full)
    return tuple(str(fields.host(text)) for text in full)


def _pairs(reader: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a callback that reads NAME=VALUE, several times, as a tuple of pairs."""

    def check(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> tuple[tuple[str, T], ...]:
        found = []
        for text in value:
            name, sign, rest = text.partition("=")
            try:
                fields.name(name)
                found.append((name, reader(rest)))
            except fields.FieldError as error:
                told = show(text if sign and error.code != "TG020" else name)
                raise click.BadParameter(f"{told}: write NAME=VALUE; {error}") from None
        return tuple(found)

    return check


def _root(_: click.Context, __: click.Parameter, value: Path | None) -> Path:
    return _default() if value is None else value


def _default() -> Path:
    """Return the current directory if it is an inventory, else ./inventory."""
    return Path() if Path(files.OVERLAY_FILE).is_file() else Path("inventory")


_inventory = click.option(
    "--inventory",
    "root",
    metavar="INV",
    type=_PATH,
    callback=_root,
    help="The inventory; default: the current directory if it has an overlay.yaml, else ./inventory.",
)
_dry_run = click.option("--dry-run", is_flag=True, help="Write nothing; print the change as a unified diff.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_file = click.option(
    "--file", metavar="FILE", help="Where to write it: KIND/FILE.yaml; default: where its neighbours are."
)
_not_before = click.option(
    "--not-before", metavar="TIME", callback=_reads(fields.instant), help="Its begin, UTC."
)
_expires = click.option("--expires", metavar="TIME", callback=_reads(fields.instant), help="Its end, UTC.")


def _key_option(help_: str) -> Callable[[F], F]:
    return click.option(
        "--public-key", metavar="KEY", required=True, callback=_reads(fields.public_key), help=help_
    )


def _adds(command: F) -> F:
    """Give a command the options that every `add` has."""
    for option in (_json, _dry_run, _file, _inventory):
        command = option(command)
    return command


@click.group()
def inventory() -> None:
    """Edit an inventory in place: comments, order and layout stay, and nothing is written that has new errors."""


@inventory.group(short_help="Add an object.")
def add() -> None:
    """Add an object to the inventory."""


_name = click.argument("name", callback=_reads(fields.name))


@add.command(
    "client",
    short_help="Add a client.",
    epilog="Example: tidegate inventory add client zoe-laptop --public-key KEY --group engineers --gateway fra1",
)
@_name
@_key_option("The client's WireGuard public key; 'tidegate client init' on the host prints it.")
@click.option(
    "--address",
    "addresses",
    metavar="ADDRESS",
    multiple=True,
    callback=_hosts,
    help="Its addresses; default: the lowest free one of each family of the overlay.",
)
@click.option(
    "--gateway",
    "gateways",
    metavar="NAME",
    multiple=True,
    callback=_reads(fields.name),
    help="Its gateways, in order; default: the only one there is.",
)
@click.option(
    "--group", "groups", metavar="NAME", multiple=True, callback=_reads(fields.name), help="Groups it joins."
)
@_adds
def add_client(
    name: str,
    public_key: str,
    addresses: tuple[str, ...],
    gateways: tuple[str, ...],
    groups: tuple[str, ...],
    **common: Any,
) -> int:
    """Add a client; it gets the next free addresses, joins its groups, and uses its gateways."""

    def make(known: Survey) -> Fields:
        adding.check_members(known, "group", groups)
        return {
            "public_key": public_key,
            "addresses": adding.addresses(known, addresses),
            "gateways": adding.gateways(known, gateways),
        }

    return _add("client", name, make, groups=groups, **common)


@add.command(
    "gateway",
    short_help="Add a gateway.",
    epilog="Example: tidegate inventory add gateway tok1 --public-key KEY --endpoint 203.0.113.30:51820 "
    "--network 10.40.0.0/16",
)
@_name
@_key_option("The gateway's WireGuard public key; 'tidegate gateway init' on the host prints it.")
@click.option(
    "--endpoint", metavar="IP:PORT", required=True, callback=_reads(fields.endpoint), help="IP:PORT."
)
@click.option(
    "--network",
    "networks",
    metavar="PREFIX",
    multiple=True,
    required=True,
    callback=_reads(fields.network),
    help="What lies behind it.",
)
@_adds
def add_gateway(name: str, public_key: str, endpoint: str, networks: tuple[str, ...], **common: Any) -> int:
    """Add a gateway and the networks behind it."""
    return _add(
        "gateway",
        name,
        lambda _: {"public_key": public_key, "endpoint": endpoint, "networks": list(networks)},
        **common,
    )


@add.command(
    "group",
    short_help="Add a group.",
    epilog="Example: tidegate inventory add group auditors --member carol-laptop --expires carol-laptop=2027-01-31",
)
@_name
@click.option(
    "--member",
    "members",
    metavar="CLIENT",
    multiple=True,
    required=True,
    callback=_reads(fields.member),
    help="A client in it.",
)
@click.option(
    "--not-before",
    metavar="CLIENT=TIME",
    multiple=True,
    callback=_pairs(lambda text: (fields.instant(text), text)[1]),
    help="When a membership begins.",
)
@click.option(
    "--expires",
    metavar="CLIENT=TIME",
    multiple=True,
    callback=_pairs(lambda text: (fields.instant(text), text)[1]),
    help="When a membership ends.",
)
@_adds
def add_group(
    name: str,
    members: tuple[str, ...],
    not_before: tuple[tuple[str, str], ...],
    expires: tuple[tuple[str, str], ...],
    **common: Any,
) -> int:
    """Add a group of clients."""

    def make(known: Survey) -> Fields:
        adding.check_members(known, "client", members)
        return _present(members=members, not_before=dict(not_before), expires=dict(expires))

    return _add("group", name, make, **common)


_ports = click.option(
    "--port",
    "ports",
    metavar="PROTO/PORT",
    multiple=True,
    callback=_reads(fields.ports),
    help="tcp/N, tcp/N-M, udp/..., icmp, proto/N or any.",
)


@add.command(
    "resource",
    short_help="Add a resource.",
    epilog="Example: tidegate inventory add resource wiki --address 10.20.0.90/32 --port tcp/443",
)
@_name
@click.option(
    "--address",
    "addresses",
    metavar="PREFIX",
    multiple=True,
    required=True,
    callback=_reads(fields.network),
    help="Where it is.",
)
@_ports
@_adds
def add_resource(name: str, addresses: tuple[str, ...], ports: tuple[str, ...], **common: Any) -> int:
    """Add a resource; without --port, each policy that names it says the ports."""
    return _add("resource", name, lambda _: _present(addresses=addresses, ports=ports), **common)


@add.command(
    "policy",
    short_help="Add a policy.",
    epilog="Example: tidegate inventory add policy ops-reach-web --from group:operators --to resource:web "
    "--action allow",
)
@_name
@click.option(
    "--from",
    "sources",
    metavar="WHO",
    multiple=True,
    required=True,
    callback=_reads(fields.source),
    help="client:NAME, group:NAME or all-clients.",
)
@click.option(
    "--to",
    "destinations",
    metavar="WHERE",
    multiple=True,
    required=True,
    callback=_reads(fields.destination),
    help="resource:NAME or a prefix.",
)
@click.option("--action", type=click.Choice(["allow", "deny"]), required=True)
@_ports
@_not_before
@_expires
@_adds
def add_policy(
    name: str,
    sources: tuple[str, ...],
    destinations: tuple[str, ...],
    action: str,
    ports: tuple[str, ...],
    not_before: str | None,
    expires: str | None,
    **common: Any,
) -> int:
    """Add a policy."""
    made: dict[str, Any] = {"from": sources, "to": destinations, "ports": ports, "action": action}
    made |= {"not_before": not_before, "expires": expires}
    return _add("policy", name, lambda _: _present(**made), **common)


@add.command(
    "test",
    short_help="Add an access test.",
    epilog="Example: tidegate inventory add test --from client:carol-laptop --to 10.20.5.3 --port tcp/5432 "
    "--expect deny --file tests/operations.yaml",
)
@click.option("--from", "source", metavar="WHO", required=True, callback=_reads(fields.test_source))
@click.option("--to", "destination", metavar="ADDRESS", required=True, callback=_reads(fields.address))
@click.option("--port", metavar="PROTO/PORT", required=True, callback=_reads(fields.one_port))
@click.option("--expect", type=click.Choice(["allow", "deny"]), required=True)
@click.option("--at", metavar="TIME", callback=_reads(fields.instant), help="The packet's moment, UTC.")
@_adds
def add_test(source: str, destination: str, port: str, expect: str, at: str | None, **common: Any) -> int:
    """Add an access test; 'tidegate test' runs it."""
    made = {"from": source, "to": destination, "port": port, "expect": expect, "at": at}
    return _add("test", "", lambda _: _present(**made), **common)


def _add(
    kind: str,
    name: str,
    make: Callable[[Survey], Fields],
    root: Path,
    file: str | None,
    dry_run: bool,
    as_json: bool,
    groups: Sequence[str] = (),
) -> int:
    content, unreadable, before = _read(root)
    try:
        known = survey(content, before)
        added = adding.add(content, known, kind, name, make(known), _inside(root, file), groups)
    except EditError as error:
        raise Failure(_under(root, error)) from None
    verb = "would add" if dry_run else "added"
    lines = [f"{_place(root, where)}: {verb} {what}" for where, what in added.places]
    if "addresses" in added.fields and kind == "client":
        lines[0] += f" with {', '.join(added.fields['addresses'])}"
    told = {
        "added": {"kind": kind, "name": name or None, "fields": added.fields},
        "places": [
            {"file": show_path(where.file), "line": where.line, "what": what} for where, what in added.places
        ],
    }
    return _write(root, added.change, unreadable, before, lines, told, dry_run, as_json)


@inventory.command(
    short_help="Remove an object and every reference to it.",
    epilog="Examples: tidegate inventory remove client carol-laptop --dry-run; "
    "tidegate inventory remove test tests/operations.yaml:3",
)
@click.argument("kind", type=click.Choice(list(KINDS)))
@click.argument("name")
@click.option(
    "--cascade",
    is_flag=True,
    help="Also remove what would be left empty, and let a deny go or cover less.",
)
@_inventory
@_dry_run
@_json
def remove(kind: str, name: str, cascade: bool, root: Path, dry_run: bool, as_json: bool) -> int:
    """Remove an object and every reference to it, and name each with its place.

    A policy that would be left without `from` or `to`, a group without members, a client without gateways, and a deny
    that would go or cover less with what is removed: with any of these the command refuses and lists them, until
    --cascade is given. NAME of a test is its place, tests/FILE.yaml:LINE.
    """
    content, unreadable, before = _read(root)
    try:
        removal = removing.remove(content, survey(content, before), kind, name, cascade)
    except EditError as error:
        raise Failure(_under(root, error)) from None
    refused = not cascade and any(loss.needs_cascade for loss in removal.losses)
    verb = "would remove" if refused or dry_run else "removed"
    lines = [f"{_place(root, loss.where)}: {verb} {_loss(loss)}" for loss in removal.losses]
    if refused:
        say(lines, err=True)
        raise Failure(
            "more would go than mere mentions of it; nothing is written: give --cascade to remove it all"
        )
    told = {
        "removed": [
            {
                "file": show_path(loss.where.file),
                "line": loss.where.line,
                "what": loss.text,
                "may_widen_access": loss.widens,
            }
            for loss in removal.losses
        ]
    }
    return _write(root, removal.change, unreadable, before, lines, told, dry_run, as_json)


def _loss(loss: removing.Loss) -> str:
    return show_path(loss.text) + (f"; {removing.WIDENS}" if loss.widens else "")


@inventory.command(
    "fmt",
    short_help="Lay files out in the one canonical way.",
    epilog="Examples: tidegate inventory fmt inventory; "
    "tidegate inventory fmt --check inventory/clients/operations.yaml",
)
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=_PATH)
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a file is laid out otherwise.")
@click.option("--dry-run", is_flag=True, help="Write nothing; print the change as a unified diff.")
def fmt(paths: tuple[Path, ...], check: bool, dry_run: bool) -> int:
    """Lay out inventories or single files in the one canonical way; comments, order and meaning stay.

    A file with errors of its own is named and left alone. Exit status: 0 done, 1 --check found some, or a file failed.
    """
    failed = found = False
    for path in paths or (_default(),):
        top, content, problems = _to_format(path)
        changed: dict[str, bytes | None] = {}
        for file, data in sorted(content.items()):
            documents, flaws = load({file: data})
            if flaws:
                problems += flaws
                continue
            try:
                made = form(data.decode("utf-8")).encode("utf-8") if documents else data
            except LayoutError as error:
                problems.append(Diagnostic(Where(file), "TG005", str(error)))
                continue
            if made != data:
                changed[file] = made
        say(report.diagnostic_lines(problems, str(top)), err=True)
        failed |= bool(problems)
        found |= bool(changed)
        change = Change(content, changed)
        if dry_run:
            say(diff(change, str(top)))
        else:
            if not check:
                _store(top, change)
            verb = "is laid out otherwise" if check else "formatted"
            say(f"{show_path(os.path.normpath(top / file))}: {verb}" for file in changed)
    return PROBLEMS if failed or (check and found) else OK


def _to_format(path: Path) -> tuple[Path, dict[str, bytes], list[Diagnostic]]:
    """Return a directory, the files in it that are to be formatted, and what could not be read."""
    if path.is_dir() and not path.is_symlink():
        content, problems = files.read(path)
        return path, content, list(problems)
    try:
        return path.parent, {path.name: store.read(path)}, []
    except EditError as error:
        raise Failure(str(error)) from None


@inventory.command(
    "import",
    short_help="Turn wg-quick files into an inventory.",
    epilog="Example: tidegate inventory import wg0.conf alice.conf bob.conf --into imported --fleet acme",
)
@click.argument("sources", metavar="FILE...", nargs=-1, required=True, type=_PATH)
@click.option("--into", metavar="DIR", type=_PATH, required=True, help="A directory that is absent or empty.")
@click.option("--fleet", metavar="NAME", callback=_reads(fields.name), help="The fleet's name.")
@click.option(
    "--overlay",
    metavar="PREFIX",
    multiple=True,
    callback=_reads(fields.network),
    help="The clients' address space; default: guessed from their addresses.",
)
@click.option(
    "--public-key",
    "keys",
    metavar="NAME=KEY",
    multiple=True,
    callback=_pairs(lambda text: (fields.public_key(text), text)[1]),
    help="A host's public key that no file gives.",
)
@click.option(
    "--endpoint",
    "endpoints",
    metavar="NAME=IP:PORT",
    multiple=True,
    callback=_pairs(lambda text: fields.endpoint(text).text),
    help="A gateway's endpoint that no file gives.",
)
@click.option(
    "--network",
    "networks",
    metavar="NAME=PREFIX",
    multiple=True,
    callback=_pairs(fields.network),
    help="A network behind a gateway that no file gives.",
)
def import_(
    sources: tuple[Path, ...],
    into: Path,
    fleet: str | None,
    overlay: tuple[str, ...],
    keys: tuple[tuple[str, str], ...],
    endpoints: tuple[tuple[str, str], ...],
    networks: tuple[tuple[str, Network], ...],
) -> int:
    """Turn wg-quick files of gateways and clients into an inventory in DIR, with no policy: default deny.

    Private and preshared keys are never copied. Whatever is not imported is named with its place on stderr. Exit
    status: 0 the inventory is valid, 1 something is missing, which is said, too.
    """
    if into.is_symlink() or (
        into.exists() and (not into.is_dir() or any(e.name != ".git" for e in into.iterdir()))
    ):
        raise Failure(f"{show_path(str(into))}: not an empty directory; name a new one")
    try:
        read = [(str(path), store.read(path)) for path in sources]
    except EditError as error:
        raise Failure(str(error)) from None
    nets: dict[str, tuple[Network, ...]] = {}
    for name, network in networks:
        nets[name] = (*nets.get(name, ()), network)
    given = wgimport.Given(fleet, tuple(map(fields.network, overlay)), dict(keys), dict(endpoints), nets)
    made = wgimport.convert(read, given)
    say(made.left_out, err=True)
    into.mkdir(parents=True, exist_ok=True)
    _store(into, Change({}, dict(made.files)))
    say(f"{show_path(str(into / path))}: written" for path in sorted(made.files))
    checked = pipeline.validate_files(made.files)
    say(report.diagnostic_lines(checked.diagnostics, str(into)), err=True)
    say((f"missing: {line}" for line in made.missing), err=True)
    say(["no policy is written: until you add some, every gateway in enforce denies everything"])
    return PROBLEMS if made.missing or has_errors(checked.diagnostics) else OK


# The edges ----------------------------------------------------------------------------------------------------------


def _read(root: Path) -> tuple[dict[str, bytes], list[Diagnostic], Checked]:
    content, unreadable = files.read(root)
    return content, unreadable, pipeline.validate_files(content, unreadable)


def _write(
    root: Path,
    change: Change,
    unreadable: list[Diagnostic],
    before: Checked,
    lines: Sequence[str],
    told: dict[str, Any],
    dry_run: bool,
    as_json: bool,
) -> int:
    """Judge the changed inventory; write it unless it has new errors; print what was done."""
    after = pipeline.validate_files(change.after, unreadable)
    errors = new_errors(before, after)
    if errors:
        say(report.diagnostic_lines(errors, str(root)), err=True)
        raise Failure(
            f"{show_path(str(root))}: the edit would make {report.counts(errors)}; nothing is written"
        )
    warnings = [d for d in after.diagnostics if d not in before.diagnostics and not d.is_error]
    say(report.diagnostic_lines(warnings, str(root)), err=True)
    if not dry_run:
        _store(root, change)
    if as_json:
        written = sorted(path for path, data in change.files.items() if data is not None)
        gone = sorted(path for path, data in change.files.items() if data is None)
        files_ = {"written": list(map(show_path, written)), "deleted": list(map(show_path, gone))}
        document = {"format": 1, "dry_run": dry_run, **files_, **told}
        say([report.to_json(document | ({"diff": diff(change, str(root))} if dry_run else {}))])
    elif dry_run:
        say(lines, err=True)
        say(diff(change, str(root)))
    else:
        say(lines)
    return OK


def _store(root: Path, change: Change) -> None:
    try:
        store.write(root, change)
    except EditError as error:
        raise Failure(_under(root, error)) from None


def _inside(root: Path, file: str | None) -> str | None:
    """Return a file's path inside the inventory; one that shells complete begins with the inventory's own."""
    if file is None:
        return None
    prefix = os.path.normpath(root) + os.sep
    path = os.path.normpath(file)
    return path.removeprefix(prefix)


def _place(root: Path, where: Where) -> str:
    return f"{show_path(os.path.normpath(root / where.file))}:{where.line}"


def _under(root: Path, error: EditError) -> str:
    """Return an error's line; places in it are relative to the inventory."""
    return f"{show_path(str(root))}: {error}"


def _present(**values: Any) -> Fields:
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items() if v}
