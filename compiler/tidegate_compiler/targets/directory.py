"""A directory, local or mounted, as a target; a lock on it keeps two publishers apart."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tidegate_compiler.targets import Found, Host, Options, TargetError, tree
from tidegate_compiler.targets.folders import Local


class Directory:
    """The bundle directory itself. A mount whose server knows no locks is protected by the comparison in `put` only."""

    def __init__(self, name: str, options: Options) -> None:
        """Name the directory, which is made when it is absent."""
        self._path = Path(name)
        self._options = options
        self._root: Local | None = None

    def __enter__(self) -> Self:
        """Open and lock it."""
        for name, what in (("overlay.yaml", "an inventory"), ("manifest.json", "a compile output")):
            if (self._path / name).exists():
                raise TargetError(f"{self._path} is {what}, not a bundle directory; name another")
        if self._path.exists() and not self._path.is_dir():
            raise TargetError(f"{self._path}: not a directory; name the bundle directory")
        if not self._path.parent.is_dir():
            raise TargetError(
                f"{self._path.parent}: no such directory, so {self._path.name} is not made there; is the name right, "
                "and is what should be there mounted?"
            )
        if self._options.write:
            self._path.mkdir(exist_ok=True)
        elif not self._path.exists():
            return self  # nothing is there, and a look makes nothing
        descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise TargetError(
                f"{self._path}: another publish is at work; try again when it is done"
            ) from None
        except OSError:
            pass  # a file system without locks
        self._root = Local(descriptor, str(self._path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unlock it."""
        if self._root is not None:
            self._root.close()
            self._root = None

    def hosts(self) -> Mapping[Host, str]:
        """See Target."""
        return {} if self._root is None else tree.hosts(self._root)

    def find(self, kind: str, host: str) -> Found:
        """See Target."""
        return Found() if self._root is None else tree.find(self._root, kind, host)

    def put(
        self, kind: str, host: str, digest: str, files: Mapping[str, bytes], found: Found, keep: int
    ) -> str:
        """See Target."""
        assert self._root is not None
        return tree.put(self._root, kind, host, digest, files, found, keep)

    def index(self) -> bytes:
        """See Target."""
        return b"" if self._root is None else tree.read_index(self._root)

    def remember(self, index: bytes) -> None:
        """See Target."""
        assert self._root is not None
        tree.write_index(self._root, index)
