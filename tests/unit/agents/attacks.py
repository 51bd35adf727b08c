"""What a hostile bundle directory may offer: each attack by its name, and the refusal it ends in.

After The Update Framework's list (https://theupdateframework.io, "Attacks"): arbitrary install, rollback, freeze,
mix-and-match, endless data, wrong target. Each takes a stage on which a good release of serial 5 is in force.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.dsse import Envelope

from tidegate_schema import jsonfile, keyset, release
from tidegate_schema.keyset import KEYS_FILE, KeySet
from tidegate_schema.release import PAYLOAD_TYPE, FileEntry, Release, files_digest

SERIAL = 5
OTHER_PRIVATE, OTHER_PUBLIC = release.generate_key()
OTHER_SIGNER = release.load_signer(OTHER_PRIVATE)


@dataclass
class Stage:
    """A host's bundle directory, who the host is, and who signs for it."""

    directory: Path
    fleet: str
    kind: str
    host: str
    signer: Any
    good: dict[str, bytes]
    """The files in force."""
    other: dict[str, bytes]
    """Files of another release, as good."""
    now: int

    @property
    def main(self) -> str:
        """A file that every release of this kind has."""
        return "wg0.conf" if self.kind == "client" else "peers.json"

    def publish(self, files: dict[str, bytes] | None = None, signer: Any = None, **changes: Any) -> Path:
        """Write a release of a higher serial, point `current` at it, and return its folder."""
        files = self.other if files is None else files
        fields: dict[str, Any] = {
            "fleet": self.fleet,
            "kind": self.kind,
            "host": self.host,
            "serial": SERIAL + 1,
            "not_after": self.now + 86400,
            "source": "test",
            "files": {name: FileEntry.of(data) for name, data in files.items()},
        }
        made = Release(**fields | changes)
        return self.place(files, files_digest(made.files), release.sign(made, signer or self.signer))

    def place(self, files: dict[str, bytes], digest: str, envelope: bytes) -> Path:
        """Write a folder as it is told, and point `current` at it."""
        folder = self.directory / "releases" / digest
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        (folder / "release.json").write_bytes(envelope)
        self.link(f"releases/{digest}")
        return folder

    def link(self, target: str) -> None:
        """Point `current` somewhere, in one step."""
        aside = self.directory / ".current"
        aside.unlink(missing_ok=True)
        aside.symlink_to(target)
        aside.replace(self.directory / "current")

    def hidden(self, change: Callable[[Path], Any], files: dict[str, bytes] | None = None) -> None:
        """Publish, and change the folder before `current` names it, or the name that `change` returns."""
        aside = self.directory / "aside"
        (self.directory / "current").rename(aside)
        folder = self.publish(files)
        (self.directory / "current").unlink()
        aside.rename(self.directory / "current")
        name = change(folder)
        self.link(f"releases/{name if isinstance(name, str) else folder.name}")

    def signed(self, payload_type: str = PAYLOAD_TYPE, **changes: Any) -> None:
        """Publish a statement that no `Release` could make."""
        entries = {name: FileEntry.of(data) for name, data in self.other.items()}
        made = Release(
            self.fleet, self.kind, self.host, SERIAL + 1, self.now + 86400, "test", entries
        ).payload()
        envelope = Envelope(jsonfile.canonical(jsonfile.parse(made) | changes), payload_type, {})
        envelope.sign(self.signer)
        self.place(self.other, files_digest(entries), jsonfile.canonical(envelope.to_dict()))


def _edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Stage], None]:
    def attack(stage: Stage) -> None:
        def edit(folder: Path) -> None:
            path = folder / (name or stage.main)
            path.write_bytes(change(path.read_bytes()))

        stage.hidden(edit)

    return attack


def _unsign(data: bytes) -> bytes:
    return jsonfile.canonical(jsonfile.parse(data) | {"signatures": []})


def _huge(name: str) -> Callable[[Stage], None]:
    return lambda stage: stage.hidden(lambda folder: os.truncate(folder / (name or stage.main), 1 << 42))


def _linked(stage: Stage) -> None:
    def link(folder: Path) -> None:
        (folder / stage.main).rename(stage.directory / "elsewhere")
        (folder / stage.main).symlink_to(stage.directory / "elsewhere")

    stage.hidden(link)


def _linked_directory(stage: Stage) -> None:
    def link(folder: Path) -> None:
        elsewhere = stage.directory / "elsewhere"
        if elsewhere.exists():
            shutil.rmtree(elsewhere) if elsewhere.is_dir() else elsewhere.unlink()
        folder.rename(elsewhere)
        folder.symlink_to(elsewhere)

    stage.hidden(link)


def _mixed(stage: Stage) -> None:
    """The signed statement of one release, and a file of the other."""
    stage.hidden(
        lambda folder: (folder / stage.main).write_bytes(
            stage.good[stage.main][: len(stage.other[stage.main])]
        )
    )


def _renamed(folder: Path) -> str:
    folder.rename(folder.with_name("0" * 64))
    return "0" * 64


def _pipe(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)


def _extra(stage: Stage) -> None:
    name = "policy.json" if stage.kind == "client" else "wg0.conf"
    stage.publish({**stage.other, name: b"{}"})


def _replayed_as_another(stage: Stage) -> None:
    stage.publish(serial=SERIAL)


def _with_keys(stage: Stage) -> None:
    """A key set that no key of the host has signed, beside a release that is good."""
    forged = keyset.sign(KeySet(stage.fleet, 1, 1, (OTHER_PUBLIC.decode(),)), [OTHER_SIGNER])
    stage.hidden(lambda folder: (folder / KEYS_FILE).write_bytes(keyset.write([forged])))


ATTACKS: dict[str, tuple[str, Callable[[Stage], Any]]] = {
    "unsigned": ("unsigned", _edit("release.json", _unsign)),
    "wrong-key": ("wrong-key", lambda stage: stage.publish(signer=OTHER_SIGNER)),
    "key-set-of-another-key": ("wrong-key-set", _with_keys),
    "key-set-held-back": ("missing-key-set", lambda stage: stage.publish(key_set=1)),
    "other-host": ("other-host", lambda stage: stage.publish(host="somebody-else")),
    "other-kind": (
        "other-kind",
        lambda stage: stage.publish(kind="gateway" if stage.kind == "client" else "client"),
    ),
    "other-fleet": ("other-fleet", lambda stage: stage.publish(fleet="another")),
    "older-serial": ("replayed", lambda stage: stage.publish(serial=SERIAL - 1)),
    "same-serial-other-content": ("replayed", _replayed_as_another),
    "frozen": ("expired", lambda stage: stage.publish(not_after=stage.now - 1)),
    "mixed-releases": ("mixed-files", _mixed),
    "another-release-s-directory": ("mixed-files", lambda stage: stage.hidden(_renamed)),
    "truncated-file": ("mixed-files", _edit("", lambda data: data[:-1])),
    "padded-file": ("bad-file", _edit("", lambda data: data + b"\n")),
    "truncated-envelope": ("malformed-envelope", _edit("release.json", lambda data: data[:-20])),
    "padded-envelope": ("malformed-envelope", _edit("release.json", lambda data: data + b" ")),
    "huge-file": ("bad-file", _huge("")),
    "huge-envelope": ("bad-file", _huge("release.json")),
    "pipe": ("bad-file", lambda stage: stage.hidden(lambda folder: _pipe(folder, stage.main))),
    "unknown-format": ("unknown-format", lambda stage: stage.signed(format=99)),
    "another-type": ("wrong-type", lambda stage: stage.signed("application/vnd.tidegate.plan+json")),
    "statement-against-its-schema": ("malformed-payload", lambda stage: stage.signed(serial="6")),
    "file-against-its-schema": ("invalid-bundle", lambda stage: stage.publish({stage.main: b'{"format":1}\n'})),
    "file-of-another-kind": ("wrong-files", _extra),
    "path-in-a-file-name": (
        "malformed-payload",
        lambda stage: stage.signed(files={"../../etc/passwd": {"sha256": "0" * 64, "size": 1}}),
    ),
    "link-out-of-the-directory": ("bad-link", lambda stage: stage.link("../../../etc")),
    "link-by-a-detour": ("bad-link", lambda stage: stage.link(f"releases/../releases/{'0' * 64}")),
    "file-that-is-a-link": ("bad-file", _linked),
    "directory-that-is-a-link": ("half-written", _linked_directory),
    "half-written-file": (
        "half-written",
        lambda stage: stage.hidden(lambda folder: (folder / stage.main).unlink()),
    ),
    "half-written-directory": ("half-written", lambda stage: stage.hidden(shutil.rmtree)),
    "no-envelope-yet": (
        "half-written",
        lambda stage: stage.hidden(lambda folder: (folder / "release.json").unlink()),
    ),
}  # fmt: skip
"""By what is done: the name of the refusal, and the deed."""
