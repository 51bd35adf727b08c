"""`tidegate inventory import`: read the files, convert, write a new inventory, say what is missing."""

from __future__ import annotations

from pathlib import Path

import click

from tidegate_compiler import fields, pipeline, report
from tidegate_compiler.diagnostics import has_errors, show_path
from tidegate_compiler.edit import store, wgimport
from tidegate_compiler.edit.change import Change, EditError
from tidegate_compiler.edit.edges import OK, PROBLEMS, store_change
from tidegate_compiler.edit.imported import Given
from tidegate_compiler.edit.options import as_written, many, many_pairs, reads
from tidegate_compiler.model import Network
from tidegate_compiler.terminal import say
from tidegate_schema.cli import PATH, Failure


@click.command(
    "import",
    short_help="Turn wg-quick files into an inventory.",
    epilog="Example: tidegate inventory import wg0.conf alice.conf bob.conf --into imported --fleet acme",
)
@click.argument("sources", metavar="FILE...", nargs=-1, required=True, type=PATH)
@click.option("--into", metavar="DIR", type=PATH, required=True, help="A directory that is absent or empty.")
@click.option("--fleet", metavar="NAME", callback=reads(fields.name), help="The fleet's name.")
@many(
    "--overlay",
    "overlay",
    "PREFIX",
    fields.network,
    "The clients' address space; default: guessed from their addresses.",
)
@many_pairs(
    "--public-key",
    "keys",
    "NAME=KEY",
    as_written(fields.public_key),
    "A host's public key that no file gives.",
)
@many_pairs(
    "--endpoint",
    "endpoints",
    "NAME=IP:PORT",
    lambda text: fields.endpoint(text).text,
    "A gateway's endpoint that no file gives.",
)
@many_pairs(
    "--network", "networks", "NAME=PREFIX", fields.network, "A network behind a gateway that no file gives."
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
    given = Given(fleet, tuple(map(fields.network, overlay)), dict(keys), dict(endpoints), nets)
    made = wgimport.convert(read, given)
    say(made.left_out, err=True)
    if not any(path.startswith(("clients/", "gateways/")) for path in made.files):
        raise Failure("no gateway and no client is in these files; nothing is written")
    into.mkdir(parents=True, exist_ok=True)
    store_change(into, Change({}, dict(made.files)))
    say(f"{show_path(str(into / path))}: written" for path in sorted(made.files))
    checked = pipeline.validate_files(made.files)
    say(report.diagnostic_lines(checked.diagnostics, str(into)), err=True)
    say((f"missing: {line}" for line in made.missing), err=True)
    if made.missing:
        where = show_path(str(into))
        say(
            [f"write what is missing into {where}, or remove {where} and import again with these options"],
            err=True,
        )
    say(["no policy is written: until you add some, every gateway in enforce denies everything"])
    return PROBLEMS if made.missing or has_errors(checked.diagnostics) else OK
