"""`tidegate inventory`: read, edit, judge the result, write once; print what was done."""

from __future__ import annotations

import os
from pathlib import Path

import click

from tidegate_compiler import files, progress, report
from tidegate_compiler.diagnostics import Diagnostic, Where, show_path
from tidegate_compiler.edit import remove as removing
from tidegate_compiler.edit import store
from tidegate_compiler.edit.addcli import add
from tidegate_compiler.edit.change import Change, EditError, diff
from tidegate_compiler.edit.edges import OK, PROBLEMS, place, read, store_change, under, write
from tidegate_compiler.edit.editor import LayoutError
from tidegate_compiler.edit.form import form
from tidegate_compiler.edit.importcli import import_
from tidegate_compiler.edit.options import default_root, dry_run_option, inventory_option
from tidegate_compiler.edit.survey import KINDS, survey
from tidegate_compiler.load import load
from tidegate_compiler.options import json_option
from tidegate_compiler.terminal import say
from tidegate_schema.cli import PATH, Failure


@click.group()
def inventory() -> None:
    """Edit an inventory in place: comments, order and layout stay, and nothing is written that has new errors."""


inventory.add_command(add)
inventory.add_command(import_)


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
@inventory_option
@dry_run_option
@json_option
def remove(kind: str, name: str, cascade: bool, root: Path, dry_run: bool, as_json: bool) -> int:
    """Remove an object and every reference to it, and name each with its place.

    A policy that would be left without `from` or `to`, a group without members, a client without gateways, and a deny
    that would go or cover less with what is removed: with any of these the command refuses and lists them, until
    --cascade is given. NAME of a test is its place, tests/FILE.yaml:LINE.
    """
    content, unreadable, before = read(root)
    try:
        removal = removing.remove(content, survey(content, before), kind, name, cascade)
    except EditError as error:
        raise Failure(under(root, error)) from None
    refused = not cascade and any(loss.needs_cascade for loss in removal.losses)
    verb = "would remove" if refused or dry_run else "removed"
    lines = [f"{place(root, loss.where)}: {verb} {_loss(loss)}" for loss in removal.losses]
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
    return write(root, removal.change, unreadable, before, lines, told, dry_run, as_json)


def _loss(loss: removing.Loss) -> str:
    return show_path(loss.text) + (f"; {removing.WIDENS}" if loss.widens else "")


@inventory.command(
    "fmt",
    short_help="Lay files out in the one canonical way.",
    epilog="Examples: tidegate inventory fmt inventory; "
    "tidegate inventory fmt --check inventory/clients/operations.yaml",
)
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=PATH)
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a file is laid out otherwise.")
@click.option("--dry-run", is_flag=True, help="Write nothing; print the change as a unified diff.")
def fmt(paths: tuple[Path, ...], check: bool, dry_run: bool) -> int:
    """Lay out inventories or single files in the one canonical way; comments, order and meaning stay.

    A file with errors of its own is named and left alone. Exit status: 0 done, 1 --check found some, or a file failed.
    """
    failed = found = False
    for path in paths or (default_root(),):
        top, content, problems = _to_format(path)
        changed: dict[str, bytes | None] = {}
        with progress.shown():
            for file, data in progress.track("formatting", sorted(content.items())):
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
                store_change(top, change)
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
