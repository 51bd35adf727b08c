"""The commands that sign: `publish` and `keys`."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import click

from tidegate_compiler import held, output, publish_limits, report
from tidegate_compiler import publish as publishing
from tidegate_compiler.diagnostics import show, show_path
from tidegate_compiler.options import json_option as _json
from tidegate_compiler.plan import limits as limits_
from tidegate_compiler.plan.options import limit_option
from tidegate_compiler.terminal import print_table
from tidegate_compiler.terminal import say as _print
from tidegate_schema import release
from tidegate_schema.cli import PATH, Failure

OK = 0
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
    epilog="Example: tidegate publish out --to /srv/bundles --key keys/signing.key --source $(git rev-parse HEAD)"
)
@click.argument("out", metavar="OUT", type=PATH)
@click.option(
    "--to", "target", metavar="TARGET", type=PATH, required=True, help="A directory, local or mounted."
)
@click.option("--key", metavar="KEY", type=PATH, required=True, help="The private signing key.")
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
    try:
        signer = release.load_signer(_read_key(key))
    except ValueError as error:
        raise Failure(f"{key}: {error}") from None
    if key.stat().st_mode & 0o077:
        raise Failure(f"{key}: others may read the private key; chmod 600 it, and consider a new one")
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
        if dry_run:
            _print(["dry run: this would be done; nothing is signed and nothing written"], err=True)
    refused = publish_limits.refusal(compared[0], allowed) if dry_run else None
    if refused is not None:
        raise Failure(refused)
    return OK


@click.group()
def keys() -> None:
    """Make signing keys: whoever holds the private one can change every host that trusts the public one."""


@keys.command("init", short_help="Make a signing key.", epilog="Example: tidegate keys init keys")
@click.argument("directory", metavar="DIR", type=PATH)
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
