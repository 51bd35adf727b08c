"""The inventory's files on the disk, and the objects in them as their JSON Schemas accept them.

    INV/overlay.yaml
    INV/{gateways,clients,groups,resources,policies,tests}/*.yaml

A file that somebody may take for a part of the inventory, and that is none, is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate_compiler.verify import tree
from tidegate_compiler.verify.words import RefusalError
from tidegate_schema import validation

_KINDS = ("gateways", "clients", "groups", "resources", "policies", "tests")
_OVERLAY = "overlay.yaml"
_MAX_BYTES = 4 << 20
_LIKE_PART = (".yaml", ".yml")


def read(root: Path) -> dict[str, bytes]:
    """Return the inventory's files by relative path. Raises RefusalError, or OSError on trouble."""
    files: dict[str, bytes] = {}
    for path in _visible(root):
        if path.name == _OVERLAY:
            files[path.name] = _bytes(path)
        elif path.name in _KINDS:
            if path.is_symlink():
                raise RefusalError(f"{path.name}: a symbolic link")
            for child in _visible(path):
                if child.name.endswith(".yaml"):
                    files[f"{path.name}/{child.name}"] = _bytes(child)
                else:
                    _refuse_part(child, child.is_dir() or child.name.lower().endswith(".json"))
        else:
            _refuse_part(path, not path.is_symlink() and path.is_dir() and _holds_parts(path))
    return files


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _holds_parts(folder: Path) -> bool:
    return any(path.name.lower().endswith(_LIKE_PART) for path in _visible(folder))


def _refuse_part(path: Path, looks_like_one: bool) -> None:
    if looks_like_one or path.name.lower().endswith(_LIKE_PART):
        raise RefusalError(f"{path.name!a} is no part of an inventory, and looks like one")


def _bytes(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RefusalError(f"{path.name!a}: not a regular file")
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise RefusalError(f"{path.name!a}: larger than {_MAX_BYTES} bytes")
    return data


def objects(files: Mapping[str, bytes]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return the objects of every kind by name, and the overlay. Raises RefusalError.

    The access tests are passed over: they say what is expected of the policies, and nothing to a host.
    """
    of_kind: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}
    overlay: dict[str, Any] = {}
    for path, data in sorted(files.items()):
        kind = path.partition("/")[0]
        if kind == "tests":
            continue
        try:
            document = _document("overlay" if path == _OVERLAY else kind, data)
        except RefusalError as refusal:
            raise RefusalError(f"{path!a}: {refusal}") from None
        if path == _OVERLAY:
            overlay = document["overlay"]
        elif shared := of_kind[kind].keys() & document.keys():
            raise RefusalError(f"{path!a}: {min(shared)} is in another file too")
        else:
            of_kind[kind].update(document)
    if not overlay:
        raise RefusalError(f"there is no {_OVERLAY}")
    return of_kind, overlay


def _document(kind: str, data: bytes) -> Any:
    document = tree.parse(data)
    if document is None and kind != "overlay":
        return {}
    for problem in validation.errors(kind, document):
        raise RefusalError(f"{'/'.join(map(str, problem.path))[:80]!a} breaks the schema ({problem.keyword})")
    return document


def digest(files: Mapping[str, bytes]) -> str:
    """Return the manifest's name for these very files: a hash over the hashes by hexadecimal path."""
    hashes = {os.fsencode(path).hex(): hashlib.sha256(data).hexdigest() for path, data in files.items()}
    listing = json.dumps(hashes, sort_keys=True, separators=(",", ":")) + "\n"
    return f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"
