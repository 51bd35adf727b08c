"""The small inventory that `tidegate init` starts with, and what judges its changes: owners, CI, a commit hook.

The latter are docs/ci/, file by file: written there for an inventory at `inventory/`, and told here where it really is.
"""

from __future__ import annotations

import importlib.resources
import os
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tidegate_compiler.diagnostics import show_path
from tidegate_compiler.edit.writing import word
from tidegate_compiler.schemafiles import FOLDER as SCHEMAS
from tidegate_compiler.schemafiles import schema_files

# source in the package: path in the new directory
FILES: Mapping[str, str] = {
    "overlay.yaml": "overlay.yaml",
    "gateways.yaml": "gateways/main.yaml",
    "clients.yaml": "clients/laptops.yaml",
    "groups.yaml": "groups/people.yaml",
    "resources.yaml": "resources/web.yaml",
    "policies.yaml": "policies/engineering.yaml",
    "tests.yaml": "tests/engineering.yaml",
}
# who judges: source in docs/ci: path in the repository
JUDGES: Mapping[str, Mapping[str, str]] = {
    "github": {
        "github/tidegate.yml": ".github/workflows/tidegate.yml",
        "github/tidegate-comment.yml": ".github/workflows/tidegate-comment.yml",
    },
    "gitlab": {"gitlab-ci.yml": ".gitlab-ci.yml"},
    "pre-commit": {"pre-commit-config.yaml": ".pre-commit-config.yaml"},
}
_OWNERS = ("CODEOWNERS", ".github/CODEOWNERS", ".gitlab/CODEOWNERS", "docs/CODEOWNERS")
_PLAIN_PATH = re.compile(r"\.|[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


class ScaffoldError(Exception):
    """The directory is in use, or cannot be named in a CI file; one line."""


@dataclass(frozen=True)
class Written:
    """What was done: the paths written, and a line for each that was there already and stays as it is."""

    paths: tuple[Path, ...]
    kept: tuple[str, ...]


def inventory_files() -> dict[str, bytes]:
    """Return the files of a new inventory by path, with the schemas that editors read."""
    folder = importlib.resources.files("tidegate_compiler") / "scaffold"
    found = {path: (folder / source).read_bytes() for source, path in FILES.items()}
    return found | {f"{SCHEMAS}/{name}": data for name, data in schema_files().items()}


def judging_files(judges: Iterable[str], inventory: str) -> dict[str, bytes]:
    """Return CODEOWNERS and the files of these judges, by path in a repository that has its inventory there.

    `inventory` is a path from the top, in POSIX form, or "." for the top itself.
    """
    sources = {"CODEOWNERS": "CODEOWNERS"}
    for judge in judges:
        sources |= JUDGES[judge]
    folder = importlib.resources.files("tidegate_compiler") / "scaffold" / "ci"
    return {
        path: _placed((folder / source).read_text("utf-8"), inventory).encode()
        for source, path in sources.items()
    }


def _placed(text: str, inventory: str) -> str:
    """Put an inventory's path in the place of `inventory`, wherever docs/ci/ says where it is."""
    if _PLAIN_PATH.fullmatch(inventory) is None:
        raise ScaffoldError(
            f"{show_path(inventory)}: CI files name an inventory by a path of letters, digits, '.', '_' and '-'; "
            "choose another directory"
        )
    prefix = "" if inventory == "." else f"{inventory}/"
    text = re.sub(r"^/inventory/", f"/{prefix}", text, flags=re.MULTILINE)  # CODEOWNERS
    value = word(inventory)  # a directory may be called 1.5, or null
    text = re.sub(r"^( *INVENTORY:) inventory\b", rf"\1 {value}", text, flags=re.MULTILINE)
    text = text.replace("args: [inventory]", f"args: [{value}]")
    return text.replace("files: ^inventory/", f"files: ^{re.escape(prefix)}")


def _fresh_keys(data: bytes) -> bytes:
    """Put a new public key in the place of each: its private half is never kept, so nobody holds it."""

    def fresh(match: re.Match[bytes]) -> bytes:
        return match[1] + b64encode(X25519PrivateKey.generate().public_key().public_bytes_raw())

    return re.sub(rb"(public_key: )[A-Za-z0-9+/]{43}=", fresh, data)


def write(root: Path, judges: Iterable[str]) -> Written:
    """Fill a directory that is absent or empty (a .git in it does not count), and put what judges it at the top.

    The top is that of the git repository around it; without one, the directory itself. What is there already is never
    overwritten. Its hosts have keys that nobody holds, until the hosts' own take their place.
    """
    if root.exists() and (not root.is_dir() or any(entry.name != ".git" for entry in root.iterdir())):
        raise ScaffoldError(f"{show_path(str(root))}: not an empty directory; name a new one")
    real = root.resolve()
    top = _repository(real) or real
    judging = judging_files(judges, real.relative_to(top).as_posix())
    written = [_write(root / path, _fresh_keys(data)) for path, data in inventory_files().items()]
    kept = []
    at = root if top == real else _near(top)
    for path, data in judging.items():
        rivals = _OWNERS if path == "CODEOWNERS" else (path,)
        there = next((at / name for name in rivals if (at / name).exists() or (at / name).is_symlink()), None)
        if there is None:
            written.append(_write(at / path, data))
        else:
            kept.append(_kept(there, path, data))
    return Written(tuple(sorted(written)), tuple(kept))


def _repository(directory: Path) -> Path | None:
    """Return the top of the git repository around a directory, as git finds it: never from a ceiling up, see git(1)."""
    ceilings = {
        Path(path) for path in os.environ.get("GIT_CEILING_DIRECTORIES", "").split(os.pathsep) if path
    }
    for above in (directory, *directory.parents):
        if above in ceilings and above != directory:
            return None
        if (above / ".git").exists():
            return above
    return None


def _near(directory: Path) -> Path:
    """Return a directory as it is shortest to name: from the current one, if that is inside."""
    here = Path.cwd()
    return Path(os.path.relpath(directory, here)) if here.is_relative_to(directory) else directory


def _kept(there: Path, path: str, data: bytes) -> str:
    if path != "CODEOWNERS":
        return (
            f"{there}: is there and stays; 'tidegate init' in a new directory writes what it would have got"
        )
    owned = [line.split()[0] for line in data.decode().splitlines() if line.startswith("/")]
    return f"{there}: is there and stays; give owners to {' '.join(owned)}"


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
    return path
