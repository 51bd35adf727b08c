"""A lease: a file that says who publishes, where there are no locks; a dead publisher holds it only briefly.

    TARGET/.tidegate/lock     "<token> <number>\\n": the holder's random token, and a number that grows while it lives

No clock is compared with another one: whoever wants the lease watches the file, and takes it over when it has stood
still for PATIENCE seconds. A holder that finds somebody else's token there, or could not look for so long, has lost
it, and puts nothing any more. Between looking and renaming there is a moment in which two may think that they hold
it; the comparison in `put` stands behind it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from tidegate_compiler.progress import stage
from tidegate_compiler.targets import Conflict, TargetError
from tidegate_compiler.targets.folders import Folder
from tidegate_compiler.targets.tree import PRIVATE

FILE = "lock"
BEAT, PATIENCE = 4.0, 20.0  # seconds
_FILE_MAX_BYTES = 200

Opened = Callable[[], AbstractContextManager[Folder]]
"""Gives the target's root for a moment, to the thread that asks."""


class Lease:
    """The right to publish, held by a thread that renews it."""

    def __init__(self, root: Opened, shown: str) -> None:
        """Name the target to people by `shown`."""
        self._root, self._shown = root, shown
        self._token = secrets.token_hex(16)
        self._number = 0
        self._ends = threading.Event()
        self._renewed = 0.0
        self._is_lost = False
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def take(self) -> None:
        """Take it. TargetError when somebody alive has it."""
        seen = self._read()
        if seen:
            stage("waiting: another publish was here, and may be dead")
            waited = 0.0
            while waited < PATIENCE:
                self._ends.wait(BEAT / 4)
                waited += BEAT / 4
                now = self._read()
                if not now:
                    break
                if now != seen:
                    raise TargetError(f"{self._shown}: another publish is at work; try again when it is done")
        self._write()
        if seen:
            self._ends.wait(BEAT / 4)  # whoever took it over at the same time has written by then
        if not self._is_ours():
            raise TargetError(f"{self._shown}: another publish is at work; try again when it is done")
        self._thread.start()

    def check(self) -> None:
        """Raise Conflict when it is lost."""
        if self._is_lost or time.monotonic() - self._renewed > PATIENCE:
            raise Conflict(f"{self._shown}: another publish took over meanwhile; run this one again")

    def release(self) -> None:
        """Give it back."""
        self._ends.set()
        if self._thread.is_alive():
            self._thread.join()
            if not self._is_lost:
                with self._root() as root:
                    folder = root.folder(PRIVATE)
                    if folder is not None:
                        folder.remove(FILE)
                        folder.close()

    def _renew(self) -> None:
        while not self._ends.wait(BEAT):
            try:
                if not self._is_ours():
                    self._is_lost = True
                    return
                self._write()
            except (TargetError, OSError):
                continue  # `check` counts how long

    def _is_ours(self) -> bool:
        return self._read().partition(b" ")[0] == self._token.encode()

    def _read(self) -> bytes:
        with self._root() as root:
            folder = root.folder(PRIVATE)
            if folder is None:
                return b""
            try:
                return folder.read(FILE, _FILE_MAX_BYTES) or b""
            finally:
                folder.close()

    def _write(self) -> None:
        self._number += 1
        begun = time.monotonic()
        with self._root() as root:
            folder = root.folder(PRIVATE, make=True)
            if folder is None:
                raise TargetError(f"{self._shown}: {PRIVATE} cannot be made")
            aside = f".{FILE}.{self._token}"
            folder.write(aside, f"{self._token} {self._number}\n".encode())
            folder.replace(aside, FILE)
            folder.close()
        self._renewed = begun
