"""What a publish signs with, and by which releases of a target it goes on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from publishkit import NOW, push_to
from publishkit import compiled_output as out
from tidegate_compiler import output
from tidegate_compiler.publish import Row
from tidegate_compiler.signing import Signing, load_signing
from tidegate_compiler.targets import TargetError
from tidegate_schema import keyset, release
from tidegate_schema.cli import Failure
from tidegate_schema.keyset import KeySet
from tidegate_schema.release import Release, ReleaseError
from tidegate_schema.signatures import generate_key, load_public_key, load_signer

PRIVATE, PUBLIC = zip(*(generate_key() for _ in range(3)), strict=True)
A, B, C = map(load_signer, PRIVATE)
PEM_A, PEM_B, PEM_C = (pem.decode() for pem in PUBLIC)
KEY_A, KEY_B, KEY_C = map(load_public_key, PUBLIC)
ONE = keyset.sign(KeySet("default", 1, 1, (PEM_A,)), [A])
TWO = keyset.sign(KeySet("default", 2, 2, (PEM_A, PEM_B)), [A, B])
THREE = keyset.sign(KeySet("default", 3, 1, (PEM_B, PEM_C)), [A, B])
STATEMENT = Release("default", "client", "alice", 5, NOW, "x", {"wg0.conf": release.FileEntry.of(b"x")})


def test_a_release_is_signed_by_all_and_names_the_newest_set() -> None:
    signing = Signing(A, B, links=[ONE, TWO])
    found = release.open_envelope(signing.sign(STATEMENT), [KEY_A, KEY_B], 2)
    assert found == replace(STATEMENT, key_set=2)
    assert signing.open(signing.sign(STATEMENT)) == found
    assert keyset.read(signing.chain)[-1].key_set == TWO.key_set
    assert (Signing(A).chain, Signing(A).key_set) == (b"", 0)


def test_another_fleet_s_key_set_signs_nothing() -> None:
    with pytest.raises(
        Failure, match=r"for fleet default, the releases are for other.*keys add DIR --fleet other'"
    ):
        Signing(A, links=[ONE]).sign(replace(STATEMENT, fleet="other"))


def test_releases_under_every_set_of_the_chain_are_ours() -> None:
    three = Signing(B, links=[ONE, TWO, THREE])
    for signing, key_set in (
        (Signing(A), 0),
        (Signing(A, links=[ONE]), 1),
        (Signing(A, B, links=[ONE, TWO]), 2),
        (three, 3),
    ):
        assert three.open(signing.sign(STATEMENT)) == replace(STATEMENT, key_set=key_set)
    for stranger in (Signing(C, links=[ONE, TWO]), Signing(load_signer(generate_key()[0]))):
        with pytest.raises(ReleaseError):
            Signing(A, B, links=[ONE, TWO]).open(stranger.sign(STATEMENT))


def test_a_release_of_the_format_before_belongs_to_the_newest_set_that_it_satisfies() -> None:
    signing = Signing(B, links=[ONE, TWO, THREE], form=1)
    assert signing.open(signing.sign(STATEMENT)) == replace(STATEMENT, key_set=3, format=1)


def test_a_key_that_was_taken_away_cannot_claim_a_newer_set() -> None:
    forged = release.sign(replace(STATEMENT, key_set=3), A)
    with pytest.raises(ReleaseError):
        Signing(B, links=[ONE, TWO, THREE]).open(forged)


def test_without_its_chain_a_key_does_not_go_on_from_releases_under_one() -> None:
    with pytest.raises(ReleaseError, match="signed under key set 1, and there is none"):
        Signing(A).open(Signing(A, links=[ONE]).sign(STATEMENT))


# Publishing -------------------------------------------------------------------------------------------------------


def run(of: output.Output, target: Path, signing: Signing) -> dict[str, Row]:
    return push_to(of, target, signing)


def test_a_rotation_signs_every_host_anew_and_serials_go_on(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    run(of, target, Signing(A))
    for signing, serial in (
        (Signing(A, links=[ONE]), 2),
        (Signing(A, B, links=[ONE, TWO]), 3),
        (Signing(C, links=[ONE, TWO, THREE]), 4),
    ):
        rows = run(of, target, signing)
        assert {(row.action, row.serial) for row in rows.values()} == {("renewed", serial)}
        for host in rows:
            assert (target / host / "current" / "keys.json").read_bytes() == signing.chain
        assert {row.action for row in run(of, target, signing).values()} == {"unchanged"}


def test_a_host_that_is_behind_the_format_is_published_to_in_its_own(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    run(of, target, Signing(A))
    for form, serial in ((1, 2), (2, 3)):
        rows = run(of, target, Signing(A, form=form))
        assert {(row.action, row.serial) for row in rows.values()} == {("renewed", serial)}


def test_a_key_that_was_taken_away_does_not_use_the_serials_up(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    now = Signing(B, links=[ONE, TWO, THREE])
    run(of, target, now)
    forged = Release(
        "default", "client", "alice", 2**53 - 1, NOW, "x", {"wg0.conf": release.FileEntry.of(b"x")}
    )
    folder = target / "client" / "alice" / "releases" / ("0" * 64)
    folder.mkdir()
    (folder / "release.json").write_bytes(Signing(A, links=[ONE]).sign(forged))
    assert run(out(tmp_path, ("alice", 77)), target, now)["client/alice"].serial == 2


def test_not_even_where_the_newer_releases_were_taken_away(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    now = Signing(B, links=[ONE, TWO, THREE])
    run(of, target, now)
    files = {"wg0.conf": release.FileEntry.of(b"x")}
    forged = Release("default", "client", "alice", 2**53 - 2, NOW, "x", files)
    digest, folder = release.files_digest(files), target / "client" / "alice"
    shutil.rmtree(folder / "releases")
    (folder / "releases" / digest).mkdir(parents=True)
    (folder / "current").unlink()
    (folder / "current").symlink_to(f"releases/{digest}")
    envelope = folder / "releases" / digest / "release.json"
    envelope.write_bytes(Signing(A, links=[ONE]).sign(forged))
    assert run(of, target, now)["client/alice"].serial == 1
    assert run(out(tmp_path, ("alice", 77)), target, now)["client/alice"].serial == 2


def test_a_publisher_with_an_old_chain_is_refused(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    run(of, target, Signing(A, B, links=[ONE, TWO]))
    rows = run(of, target, Signing(A, links=[ONE])).values()
    assert {row.action for row in rows} == {"failed"}
    assert all("with the keys.json that names it" in row.reason for row in rows)


def test_a_publisher_without_its_chain_pushes_nothing(tmp_path: Path) -> None:
    """Also not where nothing is known of a host yet, and another was published under a set."""
    of, target = out(tmp_path), tmp_path / "bundles"
    run(of, target, Signing(A, B, links=[ONE, TWO]))
    shutil.rmtree(target / "client" / "alice")
    for last in ("index", "no index"):
        with pytest.raises(
            TargetError, match=r"^releases here are signed under key set 2, this publish has none;"
        ):
            run(of, target, Signing(A))
        assert not (target / "client" / "alice").exists()
        if last == "index":
            (target / ".tidegate" / "index.json").unlink()
    run(of, tmp_path / "other", Signing(A))
    shutil.rmtree(target / "client")
    shutil.copytree(tmp_path / "other" / "client", target / "client", symlinks=True)
    rows = run(of, target, Signing(A))  # the host that is looked at first tells nothing any more
    assert rows["gateway/gw"].reason.startswith(
        "releases here are signed under key set 2, this publish has none"
    )
    assert {rows[f"client/{name}"].action for name in ("alice", "bob")} == {"unchanged"}


def test_what_another_key_says_of_a_key_set_counts_for_nothing(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    run(of, target, Signing(A))
    forged = Signing(B, A, links=[ONE, TWO])
    forged._signers = (B,)
    folder = target / "client" / "alice" / "releases" / ("0" * 64)
    folder.mkdir()
    (folder / "release.json").write_bytes(forged.sign(replace(STATEMENT, host="alice")))
    assert {row.action for row in run(of, target, Signing(A)).values()} == {"unchanged"}


def test_it_is_told_under_which_set_releases_are_signed() -> None:
    assert Signing(A).title == "no key set, signed by 1 key"
    assert Signing(A, B).title == "no key set, signed by 2 keys"
    assert Signing(A, B, links=[ONE, TWO]).title == "signed under key set 2, 2 of 2 keys"
    assert Signing(A, B, links=[ONE, TWO, THREE]).title == "signed under key set 3, 1 of 2 keys"


# Loading ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name, private in zip("abc", PRIVATE, strict=True):
        path = tmp_path / f"{name}.key"
        path.touch(0o600)
        path.write_bytes(private)
    return tmp_path


def test_the_chain_beside_the_first_key_counts(keys: Path) -> None:
    assert load_signing([str(keys / "a.key")]).chain == b""
    (keys / "keys.json").write_bytes(keyset.write([ONE, TWO]))
    signing = load_signing([str(keys / "a.key"), str(keys / "b.key")])
    assert signing.chain == keyset.write([ONE, TWO])
    (keys / "elsewhere").mkdir()
    (keys / "elsewhere" / "d.key").touch(0o600)
    (keys / "elsewhere" / "d.key").write_bytes(PRIVATE[1])
    both = [str(keys / "elsewhere" / "d.key"), str(keys / "a.key")]
    assert load_signing(both).key_set == 2  # beside the second one
    (keys / "elsewhere" / "keys.json").write_bytes(keyset.write([ONE, TWO]))
    assert load_signing(both).key_set == 2
    (keys / "elsewhere" / "keys.json").write_bytes(keyset.write([ONE]))
    with pytest.raises(
        Failure, match=r"elsewhere/keys\.json and .*/keys\.json differ; name the newer one with --keys"
    ):
        load_signing(both)
    assert load_signing(both, keys / "keys.json").key_set == 2
    (keys / "other.json").write_bytes(keyset.write([ONE]))
    assert load_signing([str(keys / "a.key")], keys / "other.json").key_set == 1


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a"], "1 of these keys count"),
        (["c"], "none of these keys count"),
        (["a", "a"], "1 of these keys count"),
    ],
)
def test_too_few_signers_are_refused_before_anything_is_done(keys: Path, names: list[str], says: str) -> None:
    (keys / "keys.json").write_bytes(keyset.write([ONE, TWO]))
    with pytest.raises(Failure, match="version 2 of the key set needs 2 signatures") as caught:
        load_signing([str(keys / f"{name}.key") for name in names])
    assert says in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.message.count("SHA256:") == 2


def test_a_chain_that_is_none_is_refused(keys: Path) -> None:
    (keys / "keys.json").write_bytes(keyset.write([ONE, keyset.sign(TWO.key_set, [B])]))
    with pytest.raises(Failure, match=r"keys\.json: version 2 of the key set has 0 of the 1"):
        load_signing([str(keys / "a.key")])
    with pytest.raises(FileNotFoundError):
        load_signing([str(keys / "a.key")], keys / "absent.json")
    (keys / "keys.json").unlink()
    (keys / "keys.json").symlink_to("absent")  # one that should be there is not passed over
    with pytest.raises(FileNotFoundError):
        load_signing([str(keys / "a.key")])
