"""The compiler's commands: parse arguments, call the pipeline, print once, return the exit status."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from tidegate_compiler import (
    accesstests,
    fields,
    held,
    junit,
    output,
    pipeline,
    publish_limits,
    report,
    scaffold,
    terminal,
)
from tidegate_compiler import publish as publishing
from tidegate_compiler import verify as proof
from tidegate_compiler.advice import document as advice
from tidegate_compiler.advice.advise import advise
from tidegate_compiler.diagnostics import did_you_mean, has_errors, show, show_path
from tidegate_compiler.formats import github, sarif, text
from tidegate_compiler.formats.sources import Sources, repository_path
from tidegate_compiler.judge import Judgement, Packet, court, judge, packet
from tidegate_compiler.model import Inventory
from tidegate_compiler.options import at_option as _at
from tidegate_compiler.options import compiled as _compiled
from tidegate_compiler.options import json_option as _json
from tidegate_compiler.options import limit_option
from tidegate_compiler.plan import limits as limits_
from tidegate_compiler.reach import Reach
from tidegate_compiler.terminal import print_table
from tidegate_compiler.terminal import say as _print
from tidegate_schema import release
from tidegate_schema.cli import Failure

OK, PROBLEMS, DENIED = 0, 1, 3
_FOLDER = click.Path(path_type=Path)
_KEY_MAX_BYTES = 1 << 16
_DAY = 86400


def _duration(_: click.Context, __: click.Parameter, value: str) -> int:
    """Read a length of time, 30d, 12h or 90m, in seconds."""
    match = re.fullmatch(r"([0-9]{1,5})([dhm])", value)
    seconds = int(match[1]) * {"d": _DAY, "h": 3600, "m": 60}[match[2]] if match else 0
    if not 0 < seconds <= 3650 * _DAY:
        raise click.BadParameter(f"{show(value)}: write for instance 30d, 12h or 90m, at most 3650d")
    return seconds


@click.command(
    epilog="Examples: tidegate init inventory && tidegate validate inventory; "
    "tidegate init inventory --ci gitlab --ci pre-commit"
)
@click.argument("directory", metavar="DIR", type=_FOLDER)
@click.option(
    "--ci",
    "judges",
    type=click.Choice([*scaffold.JUDGES, "none"]),
    multiple=True,
    default=["github"],
    show_default=True,
    help="What judges every change; may be repeated.",
)
def init(directory: Path, judges: tuple[str, ...]) -> int:
    """Scaffold a small inventory in DIR: valid, tested, commented, with schemas for editors.

    CODEOWNERS and CI go to the top of the git repository that DIR is in, and name the inventory by its path there;
    what is there already stays as it is. Without a repository, DIR is taken for its top.
    """
    if "none" in judges and len(judges) > 1:
        raise click.UsageError("--ci none goes with no other --ci")
    try:
        written = scaffold.write(directory, [judge for judge in judges if judge != "none"])
    except scaffold.ScaffoldError as error:
        raise Failure(str(error)) from None
    _print(map(str, written.paths))
    _print(written.kept, err=True)
    return OK


@click.command(
    epilog="Examples: tidegate validate inventory; tidegate validate inventory --strict --at now; "
    "tidegate validate inventory --format sarif > tidegate.sarif"
)
@click.argument("inventory", metavar="INV", type=_FOLDER)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "sarif", "github"]),
    help="text (the default); json; sarif, for code scanning; github, for annotations in GitHub Actions.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colour text; auto means on a terminal, unless NO_COLOR is set.",
)
@click.option("--strict", is_flag=True, help="Let warnings fail, too.")
@_at
def validate(
    inventory: Path, form: str | None, as_json: bool, color: str, strict: bool, at: int | None
) -> int:
    """Report every problem of an inventory, with its place, code, and how to mend it.

    With --at, policies and memberships that have expired by then are reported too.
    """
    form = terminal.chosen_format(form, as_json)
    diagnostics = pipeline.validate(inventory, at).diagnostics
    sources = Sources(inventory)
    colored = form == "text" and terminal.wants_color(color, sys.stdout, os.environ)
    if form == "json":
        told: Iterable[str] = [report.to_json(report.diagnostics_document(diagnostics))]
    elif form == "sarif":
        told = [report.to_json(sarif.document(diagnostics, repository_path(inventory), sources))]
    elif form == "github":
        told = [*github.lines(diagnostics, repository_path(inventory)), report.counts(diagnostics)]
    else:
        encoding = terminal.encoding(sys.stdout)
        told = [
            *text.lines(diagnostics, str(inventory), sources, colored, encoding),
            report.counts(diagnostics),
        ]
    terminal.say(told, color=colored)
    return PROBLEMS if has_errors(diagnostics, strict) else OK


@click.command("compile", epilog="Example: tidegate compile inventory --out out")
@click.argument("inventory", metavar="INV", type=_FOLDER)
@click.option(
    "--out", metavar="DIR", type=_FOLDER, required=True, help="Absent, empty, or an earlier output."
)
@_json
def compile_(inventory: Path, out: Path, as_json: bool) -> int:
    """Turn an inventory into one bundle per host, all or nothing; files that are right stay untouched."""
    compiled = _compiled(inventory)
    try:
        written = pipeline.write(compiled, out)
    except output.OutputError as error:
        raise Failure(str(error)) from None
    if as_json:
        _print([report.to_json({"format": 1, "changed": written.changed, "removed": written.removed})])
    else:
        hosts = len(compiled.fleet.clients) + len(compiled.fleet.gateways)
        _print(
            [
                f"{hosts} hosts; {len(written.changed)} files written, {len(written.removed)} removed, "
                f"{written.unchanged} unchanged"
            ]
        )
    return OK


@click.command(epilog="Example: tidegate test inventory --junit report.xml --require-coverage")
@click.argument("inventory", metavar="INV", type=_FOLDER)
@click.option("--junit", "junit_file", metavar="FILE", type=_FOLDER, help="Write a JUnit XML report, too.")
@click.option("--require-coverage", is_flag=True, help="Fail when a policy decides no test.")
@_at
@_json
def test(
    inventory: Path, junit_file: Path | None, require_coverage: bool, at: int | None, as_json: bool
) -> int:
    """Run the inventory's access tests, and name the policies that no test touches.

    A test without `at` is about --at, by default now. Exit status: 0 all as expected, 1 not.
    """
    compiled = _compiled(inventory)
    now = int(time.time()) if at is None else at
    outcome = accesstests.run(compiled.inventory, Reach(compiled.fleet), now)
    if junit_file is not None:
        junit_file.write_bytes(junit.junit(outcome, require_coverage))
    if as_json:
        _print([report.to_json(report.test_document(outcome))])
    else:
        _print(report.test_lines(outcome, str(inventory)))
    return PROBLEMS if outcome.failures or (require_coverage and outcome.untested) else OK


@click.command(epilog="Example: tidegate compile inventory --out out && tidegate verify inventory out")
@click.argument("inventory", metavar="INV", type=_FOLDER)
@click.argument("out", metavar="OUT", type=_FOLDER)
@_json
def verify(inventory: Path, out: Path, as_json: bool) -> int:
    """Prove that a compile output says what its inventory says, by a reader that shares no code with the compiler.

    Every difference is one line; one about access comes with a packet as witness. Exit status: 0 proven, 1 not.
    """
    try:
        differences = proof.verify(inventory, out)
    except proof.RefusalError as error:
        raise Failure(f"{inventory}: {error}") from None
    if as_json:
        _print([report.to_json(report.proof_document(differences))])
    else:
        _print(report.proof_lines(differences, str(inventory), str(out)))
    return PROBLEMS if differences else OK


@click.command(
    epilog="Examples: tidegate explain inventory alice-laptop 10.20.0.80 tcp/8080; "
    "tidegate explain inventory alice-laptop fd20::80 icmp --at 2027-01-31"
)
@click.argument("inventory", metavar="INV", type=_FOLDER)
@click.argument("client")
@click.argument("destination", metavar="DEST")
@click.argument("port", metavar="PROTO/PORT")
@_at
@_json
def explain(inventory: Path, client: str, destination: str, port: str, at: int | None, as_json: bool) -> int:
    """Say whether a client's packet is allowed, which policy decides, and which way it takes.

    For a denied one also what would have allowed it: policies that lack one thing, and the smallest changes.

    Exit status: 0 allowed, 3 denied, 1 the question has no answer.
    """
    compiled = _compiled(inventory)
    try:
        address = fields.address(destination)
        fields.one_port(port)
    except fields.FieldError as error:
        wrong = port if error.code == "TG026" else destination
        raise Failure(f"{show(wrong)}: {error}") from None
    over = court(compiled.fleet)
    if client not in over.clients:
        raise Failure(f"there is no client {show(client)}{did_you_mean(client, over.clients)}")
    asked = packet(client, address, port, int(time.time()) if at is None else at)
    judgement = judge(over, asked)
    told = report.explanation(
        asked, port, judgement, over.clients[client], compiled.inventory, str(inventory)
    )
    told |= _advice(inventory, compiled.inventory, asked, port, judgement)
    _print([report.to_json(told)] if as_json else [*report.explanation_lines(told), *advice.lines(told)])
    return OK if judgement.allow else DENIED


def _advice(root: Path, known: Inventory, asked: Packet, port: str, judgement: Judgement) -> dict[str, Any]:
    """Return the advice on a packet, every place exact: the few files it speaks of are read again, carefully."""
    exact: frozenset[str] = frozenset()
    while True:
        places = advice.Places(str(root))
        told = advice.document(advise(known, asked, port, judgement, places), places)
        if places.rough <= exact:
            return told
        exact |= places.rough
        known = pipeline.validate(root, careful=exact).inventory or known


@click.command(
    epilog="Example: tidegate publish out --to /srv/bundles --key keys/signing.key --source $(git rev-parse HEAD)"
)
@click.argument("out", metavar="OUT", type=_FOLDER)
@click.option(
    "--to", "target", metavar="TARGET", type=_FOLDER, required=True, help="A directory, local or mounted."
)
@click.option("--key", metavar="KEY", type=_FOLDER, required=True, help="The private signing key.")
@click.option(
    "--valid-for",
    metavar="TIME",
    callback=_duration,
    default="30d",
    show_default=True,
    help="How long hosts may apply it: 30d, 12h or 90m.",
)
@click.option(
    "--source", metavar="REV", default=None, help="The commit it comes from; default: the inventory's digest."
)
@limit_option
@click.option(
    "--allow",
    "allowed",
    multiple=True,
    type=click.Choice(limits_.NAMES),
    help="Publish although the change is past this limit; may be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and sign and write nothing.")
@_json
def publish(
    out: Path,
    target: Path,
    key: Path,
    valid_for: int,
    source: str | None,
    limits: limits_.Limits,
    allowed: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> int:
    """Sign every host's bundle in a compile output and push it; hosts that have it already are left alone.

    What the target holds is compared with what is to be published, and past a limit nothing is, unless --allow names
    that limit. An --allow that is not needed is refused, too.
    """
    if source is not None and not re.fullmatch(r"[ -~]{1,200}", source):
        raise Failure("--source is 1 to 200 printable ASCII characters")
    if key.exists() and key.stat().st_mode & 0o077:
        raise Failure(f"{key}: others may read the private key; chmod 600 it, and consider a new one")
    try:
        signer = release.load_signer(_read_key(key))
    except ValueError as error:
        raise Failure(f"{key}: {error}") from None
    try:
        compiled = output.read(out)
        compared: list[publish_limits.Comparison] = []

        def compare() -> None:
            found = publish_limits.compare(held.read(target, compiled.fleet, signer), compiled, limits)
            _print(map(show_path, publish_limits.notices(found)), err=True)
            refused = publish_limits.refusal(found, allowed)
            if refused is not None and not dry_run:
                raise Failure(refused)
            compared.append(found)

        origin = source or compiled.inventory
        rows = list(
            publishing.publish(
                compiled, target, signer, int(time.time()), valid_for, origin, first=compare, dry_run=dry_run
            )
        )
    except (output.OutputError, publishing.PublishError) as error:
        raise Failure(str(error)) from None
    if as_json:
        _print([report.to_json(report.rows_document(rows, dry_run, compared[0]))])
    else:
        print_table(report.ROW_TITLES, [report.row_cells(row) for row in rows])
    refused = publish_limits.refusal(compared[0], allowed) if dry_run else None
    if refused is not None:
        raise Failure(refused)
    return OK


@click.group()
def keys() -> None:
    """Make signing keys: whoever holds the private one can change every host that trusts the public one."""


@keys.command("init", short_help="Make a signing key.", epilog="Example: tidegate keys init keys")
@click.argument("directory", metavar="DIR", type=_FOLDER)
@_json
def keys_init(directory: Path, as_json: bool) -> int:
    """Make an ed25519 signing key: DIR/signing.key (0600) and DIR/signing.pub. Never overwrites."""
    private_path, public_path = directory / "signing.key", directory / "signing.pub"
    for path in (private_path, public_path):
        if path.exists() or path.is_symlink():
            raise Failure(f"{path}: exists already; a signing key is never overwritten")
    directory.mkdir(parents=True, exist_ok=True)
    private, public = release.generate_key()
    _write_new(private_path, private, 0o600)
    _write_new(public_path, public, 0o644)
    ignored = directory / ".gitignore"
    if not ignored.exists():  # the private key is one careless "git add" away from being everybody's
        _write_new(ignored, b"*.key\n", 0o644)
    if as_json:
        _print([report.to_json({"private": str(private_path), "public": str(public_path)})])
    else:
        _print(
            [
                f"private key {private_path}: keep it where publish runs, and nowhere else",
                f"public key {public_path}: hosts trust it with 'tidegate client init' and 'tidegate gateway init'",
            ]
        )
    return OK


def _read_key(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_KEY_MAX_BYTES)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
