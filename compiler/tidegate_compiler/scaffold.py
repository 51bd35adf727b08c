"""The small inventory that `tidegate init` starts a repository with."""

from __future__ import annotations

import importlib.resources
import re
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

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


def _fresh_keys(data: bytes) -> bytes:
    """Put a new public key in the place of each: its private half is never kept, so nobody holds it."""

    def fresh(match: re.Match[bytes]) -> bytes:
        return match[1] + b64encode(X25519PrivateKey.generate().public_key().public_bytes_raw())

    return re.sub(rb"(public_key: )[A-Za-z0-9+/]{43}=", fresh, data)


def write(root: Path) -> list[str]:
    """Fill a directory that is absent or empty (a .git in it does not count); return the paths written.

    Its hosts have keys that nobody holds, until the hosts' own take their place.
    """
    if root.exists() and (not root.is_dir() or any(entry.name != ".git" for entry in root.iterdir())):
        raise ScaffoldError(f"{root}: not an empty directory; name a new one")
    files = scaffold()
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        with (root / path).open("xb") as file:
            file.write(_fresh_keys(data))
    return sorted(files)
