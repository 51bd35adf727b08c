"""Giving an object other fields in place: what stays the same in it keeps its bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate_compiler.diagnostics import Where
from tidegate_compiler.edit.change import Change, EditError, editor, finished
from tidegate_compiler.edit.editor import LayoutError


def update(
    files: Mapping[str, bytes],
    file: str,
    step: str | int,
    fields: Mapping[str, Any],
    window: tuple[int, int] | None = None,
) -> Change:
    """Replace the fields of an object (its name) or test (its position) of a file. EditError says why not."""
    work = editor(files, file)
    try:
        work.remove([(step,)])
        if isinstance(step, int):
            work.add_test(fields)
        else:
            work.add_object(step, fields)
    except LayoutError as error:
        raise EditError(f"{Where(file)}: {error}") from None
    return Change(files, {file: finished(file, work)})
