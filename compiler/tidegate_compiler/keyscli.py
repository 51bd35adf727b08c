"""`tidegate keys`: signing keys, and the key sets that say whose signatures count.

DIR/signing.key   a private key (0600)         DIR/keys.json        the chain of key sets
DIR/signing.pub   its public half              DIR/keys.next.json   a set that waits for signatures
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from tidegate_compiler import keysdir, keysource, report
from tidegate_compiler.diagnostics import show
from tidegate_compiler.options import json_option as _json
from tidegate_compiler.terminal import print_table
from tidegate_compiler.terminal import say as _print
from tidegate_schema import keyset, signatures
from tidegate_schema.cli import PATH, Failure
from tidegate_schema.keyset import KEYS_FILE, KeySet, KeySetError, Link
from tidegate_schema.names import is_name

OK = 0
_F = TypeVar("_F", bound=Callable[..., Any])


@click.group()
def keys() -> None:
    """Make signing keys, and say whose signatures count.

    Whoever holds enough private keys can change every host that trusts their public halves.
    """


def _threshold(text: str) -> Callable[[_F], _F]:
    return click.option(
        "--threshold",
        metavar="M",
        type=click.IntRange(1, 16),
        default=None,
        help=f"How many must sign; {text}.",
    )


_sign_with = click.option(
    "--key",
    "signing",
    metavar="KEY",
    type=click.Path(),
    multiple=True,
    required=True,
    help="A private key to sign with: a file, or agent:FINGERPRINT of an ssh-agent; may be repeated.",
)
_directory = click.argument("directory", metavar="DIR", type=PATH)


@keys.command(
    "init",
    short_help="Make a signing key, and perhaps the first key set.",
    epilog="Examples: tidegate keys init keys; tidegate keys init keys --fleet my-fleet",
)
@_directory
@click.option("--fleet", default=None, help="Make the first key set, for this fleet; 'keys add' can, too.")
@_threshold("with --fleet, and 1 in the first set")
@_json
def init(directory: Path, fleet: str | None, threshold: int | None, as_json: bool) -> int:
    """Make an ed25519 signing key: DIR/signing.key (0600) and DIR/signing.pub. Never overwrites.

    With --fleet also DIR/keys.json, the first key set, which holds this key alone.
    """
    paths = [directory / name for name in ("signing.key", "signing.pub")]
    paths += [directory / KEYS_FILE] if fleet is not None else []
    if directory.exists() and not directory.is_dir():
        raise Failure(f"{directory}: not a directory; name one for the key, which is made if it is not there")
    for path in paths:
        if path.exists() or path.is_symlink():
            raise Failure(f"{path}: exists already; a signing key is never overwritten")
    if threshold is not None and (fleet is None or threshold != 1):
        raise Failure(
            "the first key set has one key, so one must sign; 'tidegate keys add' adds more and raises --threshold"
        )
    private, public = signatures.generate_key()
    first = _first(_named(fleet), public.decode(), private) if fleet is not None else None
    directory.mkdir(parents=True, exist_ok=True)
    keysdir.write_new(paths[0], private, 0o600)
    keysdir.write_new(paths[1], public, 0o644)
    if first is not None:
        keysdir.write_new(paths[2], keyset.write([first]), 0o644)
    ignored = directory / ".gitignore"
    if not ignored.exists():  # the private key is one careless "git add" away from being everybody's
        keysdir.write_new(ignored, b"*.key\n", 0o644)
    if as_json:
        made: dict[str, Any] = {"format": 1, "private": str(paths[0]), "public": str(paths[1])}
        _print([report.to_json(made | ({"keys": str(paths[2])} if first is not None else {}))])
        return OK
    trusted = paths[2] if first is not None else paths[1]
    what = "key set" if first is not None else "public key"
    _print(
        [
            f"private key {paths[0]}: keep it where publish runs, and nowhere else",
            f"{what} {trusted}: hosts trust it with 'tidegate client init' and 'tidegate gateway init'",
        ]
    )
    return OK


def _first(fleet: str, public: str, private: bytes) -> Link:
    return keyset.sign(KeySet(fleet, 1, 1, (public,)), [signatures.load_signer(private)])


def _named(fleet: str) -> str:
    if not is_name(fleet):
        raise Failure(f"--fleet {show(fleet)}: a fleet's name is lowercase letters, digits and -")
    return fleet


@keys.command(
    "add",
    short_help="Add a key to the set.",
    epilog="Example: tidegate keys add keys bob.pub --key keys/signing.key --threshold 2",
)
@_directory
@click.argument("public", metavar="[PUB]", type=PATH, required=False)
@_sign_with
@_threshold("default: as many as before")
@click.option("--fleet", default=None, help="The fleet, for the first key set of DIR.")
@_json
def add(
    directory: Path,
    public: Path | None,
    signing: tuple[str, ...],
    threshold: int | None,
    fleet: str | None,
    as_json: bool,
) -> int:
    """Add a public key (PEM, or a line of OpenSSH's) to the newest key set; makes the next version.

    Without PUB only the threshold changes. The keys of the set before and of the new one must sign, each as many as
    their threshold says; signatures that are lacking are added with 'tidegate keys sign'. Where DIR has no key set yet,
    --fleet begins one with DIR/signing.pub, which hosts trust already.
    """
    chain = keysdir.chain(directory)
    if public is None and threshold is None:
        raise click.UsageError("name a public key, or a --threshold to change")
    added = () if public is None else (keysdir.public(public),)
    if chain:
        newest = chain[-1].key_set
        if fleet not in (None, newest.fleet):
            raise Failure(f"--fleet {show(fleet)}: the key set is for {newest.fleet}")
    elif fleet is None:
        raise Failure(
            f"{directory / KEYS_FILE}: no key set yet; say --fleet NAME to begin with the keys that sign"
        )
    else:
        chain = _begun(directory, _named(fleet), signing)
        newest = chain[-1].key_set
        if not added and threshold == newest.threshold:
            return _finish(directory, (), chain[0], as_json)
    if not added and threshold == newest.threshold:
        raise Failure(f"{threshold} of {len(newest.keys)} keys must sign already; nothing would change")
    wanted = replace(
        newest,
        version=newest.version + 1,
        threshold=newest.threshold if threshold is None else threshold,
        keys=(*newest.keys, *added),
    )
    return _propose(directory, chain, wanted, signing, as_json)


def _begun(directory: Path, fleet: str, signing: Sequence[str]) -> tuple[Link, ...]:
    """Return a chain that begins with DIR/signing.pub, which hosts trust as a public key alone."""
    signer = keysource.load(signing[0])
    if not (directory / "signing.pub").exists():
        raise Failure(
            f"{directory / 'signing.pub'}: not there; the first key set is made of the key that hosts trust"
        )
    own = keysdir.public(directory / "signing.pub")
    first = keyset.sign(KeySet(fleet, 1, 1, (own,)), [signer])
    lacking = keyset.missing(first, None)
    if lacking is not None:
        raise Failure(f"{signing[0]}: not the key of {directory / 'signing.pub'}, which begins the key set")
    return (first,)


@keys.command(
    "remove",
    short_help="Take a key out of the set.",
    epilog="Example: tidegate keys remove keys bob.pub --key keys/signing.key --threshold 1",
)
@_directory
@click.argument("which", metavar="KEYID|PUB")
@_sign_with
@_threshold("default: as many as before")
@_json
def remove(
    directory: Path, which: str, signing: tuple[str, ...], threshold: int | None, as_json: bool
) -> int:
    """Take a key out of the newest key set; makes the next version.

    A key is named by its whole ID or fingerprint, as 'tidegate keys list' shows them, or by its public half's file.
    """
    chain = keysdir.chain(directory)
    if not chain:
        raise Failure(f"{directory / KEYS_FILE}: no key set here; 'tidegate keys list' says what there is")
    newest = chain[-1].key_set
    named = [
        pem
        for pem, key in zip(newest.keys, newest.trusted, strict=True)
        if which in (key.keyid, keysource.fingerprint(pem))
    ] or [pem for pem in newest.keys if Path(which).is_file() and pem == keysdir.public(Path(which))]
    if not named:
        raise Failure(
            f"{show(which)}: no key of version {newest.version}; see 'tidegate keys list {directory}'"
        )
    rest = tuple(pem for pem in newest.keys if pem not in named)
    needed = newest.threshold if threshold is None else threshold
    if needed > len(rest):
        raise Failure(
            f"without this key {len(rest)} would be left and {needed} must sign; add another first"
            + (f", or lower --threshold to {len(rest)}" if rest else "")
        )
    wanted = replace(newest, version=newest.version + 1, threshold=needed, keys=rest)
    return _propose(directory, chain, wanted, signing, as_json)


@keys.command(
    "sign",
    short_help="Sign a key set that waits for signatures.",
    epilog="Example: tidegate keys sign keys --key agent:bob@example.net",
)
@_directory
@_sign_with
@_json
def sign(directory: Path, signing: tuple[str, ...], as_json: bool) -> int:
    """Add signatures to DIR/keys.next.json; when they are enough, it becomes the newest set of DIR/keys.json.

    Look at it first, with 'tidegate keys list': who signs a set hands the fleet over to it.
    """
    chain = keysdir.chain(directory)
    waiting = keysdir.waiting(directory, chain)
    if waiting is None:
        raise Failure(f"{directory / keysdir.NEXT_FILE}: no key set waits for signatures")
    for key in signing:
        waiting.envelope.sign(keysource.load(key))
    return _finish(directory, chain, waiting, as_json)


@keys.command("list", short_help="Say whose signatures count.", epilog="Example: tidegate keys list keys")
@_directory
@_json
def list_(directory: Path, as_json: bool) -> int:
    """Show the newest key set, and one that waits for signatures: version, threshold, keys, and who signed."""
    chain = keysdir.chain(directory)
    waiting = keysdir.waiting(directory, chain)
    shown = [link for link in (chain[-1] if chain else None, waiting) if link is not None]
    if as_json:
        sets = [_document(link, link is waiting) for link in shown]
        _print([report.to_json({"format": 1, "sets": sets})])
        return OK
    if not shown:
        _print(["no key set: hosts trust the public keys that they were given, any one of them"])
    for link in shown:
        found = link.key_set
        _print([_title(found, waiting=link is waiting)])
        signed = signatures.signed_by(link.envelope, found.trusted)
        print_table(
            ("fingerprint", "key ID", "signed"),
            [
                (keysource.fingerprint(pem), key.keyid, "yes" if key.keyid in signed else "no")
                for pem, key in zip(found.keys, found.trusted, strict=True)
            ],
        )
    return OK


def _title(key_set: KeySet, *, waiting: bool) -> str:
    needed = f"{key_set.threshold} of {len(key_set.keys)} keys must sign"
    return f"{key_set.fleet}: version {key_set.version}, {needed}" + (
        ", waits for signatures" if waiting else ""
    )


def _document(link: Link, waiting: bool) -> dict[str, Any]:
    found = link.key_set
    return {
        "fleet": found.fleet,
        "version": found.version,
        "threshold": found.threshold,
        "waits": waiting,
        "keys": [
            {"key_id": key.keyid, "fingerprint": keysource.fingerprint(pem), "public_key": pem}
            for pem, key in zip(found.keys, found.trusted, strict=True)
        ],
        "signatures": sorted(link.envelope.signatures),
    }


def _propose(
    directory: Path, chain: Sequence[Link], wanted: KeySet, signing: Sequence[str], as_json: bool
) -> int:
    if keysdir.waiting(directory, chain) is not None:
        raise Failure(
            f"{directory / keysdir.NEXT_FILE}: a set waits for signatures already; sign it, or remove it"
        )
    try:
        link = keyset.sign(wanted, [keysource.load(key) for key in signing])
    except KeySetError as error:
        raise Failure(f"version {wanted.version} of the key set: {error}") from None
    return _finish(directory, chain, link, as_json)


def _finish(directory: Path, chain: Sequence[Link], link: Link, as_json: bool) -> int:
    """Write a set where it belongs: to the end of the chain when its signatures are enough, else beside it."""
    lacking = keysdir.put(directory, chain, link)
    if as_json:
        _print(
            [report.to_json({"format": 1, "sets": [_document(link, lacking is not None)], "lacks": lacking})]
        )
        return OK
    _print([_title(link.key_set, waiting=lacking is not None)])
    if lacking is not None:
        _print([f"{lacking}; add them with 'tidegate keys sign {directory} --key KEY'"])
    else:
        _print([f"{directory / KEYS_FILE}: hosts take it up with their next release; publish now"])
    return OK
