"""The small inventory that `tidegate init` starts a repository with."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from pathlib import Path

from tidegate_schema import __version__

# source in the package: path in the new directory
FILES: Mapping[str, str] = {
    "overlay.yaml": "overlay.yaml",
    "gateways.yaml": "gateways/main.yaml",
    "clients.yaml": "clients/laptops.yaml",
    "groups.yaml": "groups/people.yaml",
    "resources.yaml": "resources/web.yaml",
    "policies.yaml": "policies/engineering.yaml",
    "tests.yaml": "tests/engineering.yaml",
    "CODEOWNERS": "CODEOWNERS",
    "github-workflow.yml": ".github/workflows/inventory.yml",
}


class ScaffoldError(Exception):
    """The directory is in use; one line."""


def scaffold() -> dict[str, bytes]:
    """Return the files of a new inventory by path."""
    folder = importlib.resources.files("tidegate_compiler") / "scaffold"
    return {
        path: (folder / source).read_bytes().replace(b"VERSION", __version__.encode("ascii"))
        for source, path in FILES.items()
    }


def write(root: Path) -> list[str]:
    """Fill a directory that is absent or empty (a .git in it does not count); return the paths written."""
    if root.exists() and (not root.is_dir() or any(entry.name != ".git" for entry in root.iterdir())):
        raise ScaffoldError(f"{root}: not an empty directory; name a new one")
    files = scaffold()
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        with (root / path).open("xb") as file:
            file.write(data)
    return sorted(files)
