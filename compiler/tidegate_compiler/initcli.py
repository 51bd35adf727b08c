"""`tidegate init`."""

from __future__ import annotations

from pathlib import Path

import click

from tidegate_compiler import scaffold
from tidegate_compiler.terminal import say as _print
from tidegate_schema.cli import PATH, Failure

OK = 0


@click.command(
    epilog="Examples: tidegate init inventory && tidegate validate inventory; "
    "tidegate init inventory --ci gitlab --ci pre-commit"
)
@click.argument("directory", metavar="DIR", type=PATH)
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
