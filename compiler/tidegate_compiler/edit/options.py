"""The options of `tidegate inventory`: every value is let through only if the compiler's own reader takes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tidegate_compiler import fields, files
from tidegate_compiler.diagnostics import BAD_KEY, show, show_refused
from tidegate_schema.cli import PATH, Failure

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def reads(reader: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a callback that lets a value through only if the compiler's own reader takes it."""

    def check(_: click.Context, __: click.Parameter, value: Any) -> Any:
        for text in (value,) if isinstance(value, str) else value or ():
            try:
                reader(text)
            except fields.FieldError as error:
                raise click.BadParameter(f"{show_refused(error.code, text)}: {error}") from None
        return value

    return check


def hosts(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Read clients' addresses; a bare one is a host."""
    full = tuple(f"{v}/{128 if ':' in v else 32}" if "/" not in v else v for v in value)
    reads(fields.host)(context, parameter, full)
    return tuple(str(fields.host(text)) for text in full)


def pairs(reader: Callable[[str], T]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a callback that reads NAME=VALUE, several times, as a tuple of pairs."""

    def check(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> tuple[tuple[str, T], ...]:
        found = []
        for text in value:
            name, sign, rest = text.partition("=")
            try:
                fields.name(name)
                found.append((name, reader(rest)))
            except fields.FieldError as error:
                told = show(text if sign and error.code != BAD_KEY else name)
                raise click.BadParameter(f"{told}: write NAME=VALUE; {error}") from None
        return tuple(found)

    return check


def _root(_: click.Context, __: click.Parameter, value: Path | None) -> Path:
    return default_root() if value is None else value


def default_root() -> Path:
    """Return the current directory if it is an inventory, else ./inventory."""
    if Path(files.OVERLAY_FILE).is_file():
        return Path()
    if not Path("inventory").exists():
        raise Failure(
            "no inventory here: there is neither overlay.yaml nor inventory/; go to one, or name it"
        )
    return Path("inventory")


def many(
    flag: str, name: str, metavar: str, reader: Callable[[str], object], help_: str, required: bool = False
) -> Callable[[F], F]:
    """Return an option that may be repeated, each value let through only if `reader` takes it."""
    return click.option(
        flag, name, metavar=metavar, multiple=True, required=required, callback=reads(reader), help=help_
    )


def many_pairs(
    flag: str, name: str, metavar: str, reader: Callable[[str], object], help_: str
) -> Callable[[F], F]:
    """Return an option that is NAME=VALUE and may be repeated."""
    return click.option(flag, name, metavar=metavar, multiple=True, callback=pairs(reader), help=help_)


def as_written(reader: Callable[[str], object]) -> Callable[[str], str]:
    """Return a reader that checks a text as `reader` does and leaves it as it is written."""

    def read(text: str) -> str:
        reader(text)
        return text

    return read


inventory_option = click.option(
    "--inventory",
    "root",
    metavar="INV",
    type=PATH,
    callback=_root,
    help="The inventory; default: the current directory if it has an overlay.yaml, else ./inventory.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Write nothing; print the change as a unified diff."
)
file_option = click.option(
    "--file", metavar="FILE", help="Where to write it: KIND/FILE.yaml; default: where its neighbours are."
)
not_before_option = click.option(
    "--not-before", metavar="TIME", callback=reads(fields.instant), help="Its begin, UTC."
)
expires_option = click.option(
    "--expires", metavar="TIME", callback=reads(fields.instant), help="Its end, UTC."
)
