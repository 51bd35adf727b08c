"""Why a write was not made, or a reading was not to be had. Each is one line; a problem document is made of it.

InventoryError
+- NotFound      404  no such object or commit
+- Exists        409  the name is taken
+- Stale         412  `expected` is not the revision that the write would meet
+- Invalid       422  the inventory would have new errors: `diagnostics`
+- Refused       409  it cannot be made like this: layout, more would go than asked (`losses`), a conflict
+- Unavailable   503  git or the remote; trying again may help
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tidegate_compiler.diagnostics import Diagnostic
from tidegate_compiler.edit.remove import Loss


class InventoryError(Exception):
    """One line that says what is wrong and how to mend it."""

    def __init__(
        self, message: str, diagnostics: Sequence[Diagnostic] = (), losses: Sequence[Loss] = ()
    ) -> None:
        super().__init__(message)
        self.diagnostics = list(diagnostics)
        self.losses = list(losses)


class NotFound(InventoryError):  # noqa: N818 - the names of the interface
    """There is no such object, kind or commit."""


class Exists(InventoryError):  # noqa: N818
    """The name is taken."""


class Stale(InventoryError):  # noqa: N818
    """The inventory is not what the caller has seen."""


class Invalid(InventoryError):  # noqa: N818
    """The write would bring new errors, which `diagnostics` names; `files` are what their places are in."""

    def __init__(
        self, message: str, diagnostics: Sequence[Diagnostic] = (), files: Mapping[str, bytes] | None = None
    ) -> None:
        super().__init__(message, diagnostics)
        self.files = files or {}


class Refused(InventoryError):  # noqa: N818
    """The write cannot be made like this: `losses` names what would go beyond what was asked."""


class Unavailable(InventoryError):  # noqa: N818
    """Git or the remote failed; nothing is written."""
