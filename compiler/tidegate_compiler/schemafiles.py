"""`tidegate schema`: the inventory's schemas as files, for editors that complete, explain and check YAML by them.

An editor reads the schema that a file names in a comment, by a path from that file:

    INV/.schemas/KIND.schema.json
    INV/clients/laptops.yaml        # yaml-language-server: $schema=../.schemas/clients.schema.json

Nothing is fetched, and what begins with a dot is no part of the inventory.
"""

from __future__ import annotations

import importlib.resources
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from tidegate_compiler.terminal import print_table, say
from tidegate_schema import validation

FOLDER = ".schemas"
KINDS = ("overlay", "gateways", "clients", "groups", "resources", "policies", "tests")


def schema_bytes(kind: str) -> bytes:
    """Return a kind's schema as it is shipped."""
    return (importlib.resources.files("tidegate_schema") / "schemas" / f"{kind}.schema.json").read_bytes()


def schema_files() -> dict[str, bytes]:
    """Return the files of an inventory's `.schemas`, by name."""
    return {f"{kind}.schema.json": schema_bytes(kind) for kind in KINDS}


def modeline(kind: str) -> str:
    """Return the comment that tells an editor the schema of a file of this kind, without its line end."""
    up = "" if kind == "overlay" else "../"
    return f"# yaml-language-server: $schema={up}{FOLDER}/{kind}.schema.json"


def _write(folder: Path, files: Mapping[str, bytes]) -> Iterable[str]:
    """Write what is not there as it should be; each file whole or not at all. Yields a line for every file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = folder / name
        if path.is_file() and not path.is_symlink() and path.read_bytes() == data:
            yield f"{path}: unchanged"
            continue
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".new-", delete=False) as file:
            file.write(data)
        new = Path(file.name)
        new.chmod(0o644)
        new.replace(path)  # takes a symbolic link's place instead of writing through it
        yield f"{path}: written"


@click.command(
    epilog="Examples: tidegate schema; tidegate schema clients > clients.schema.json; "
    "tidegate schema --out inventory/.schemas"
)
@click.argument("kind", metavar="[KIND]", type=click.Choice(KINDS), required=False)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the schemas of every kind into DIR; an inventory keeps them in .schemas.",
)
def schema(kind: str | None, out: Path | None) -> int:
    """Print the JSON Schema of a kind of inventory file; without KIND, list the kinds and how a file names its own.

    Editors with yaml-language-server complete, explain and check a file that names its schema in its first line.
    """
    if kind is not None and out is not None:
        raise click.UsageError("either KIND or --out: the directory gets the schemas of every kind")
    if out is not None:
        say(_write(out, schema_files()))
    elif kind is not None:
        say([schema_bytes(kind).decode("utf-8").rstrip("\n")])
    else:
        rows = [(name, validation.schema(name)["description"], modeline(name)) for name in KINDS]
        print_table(("kind", "files", "first line of a file"), rows)
    return 0
