"""Key sets: one hands over to the next only by enough signatures of both, and nothing else leads anywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope

from tidegate_schema import jsonfile, keyset
from tidegate_schema.keyset import KEYS_MAX_BYTES, PAYLOAD_TYPE, KeySet, KeySetError, Link
from tidegate_schema.signatures import generate_key, load_public_key, load_signer, public_pem, seal

PRIVATE, PUBLIC = zip(*(generate_key() for _ in range(4)), strict=True)
A, B, C, D = map(load_signer, PRIVATE)
PEM_A, PEM_B, PEM_C, PEM_D = (pem.decode() for pem in PUBLIC)

ZERO = KeySet("example", 0, 1, (PEM_A,))
"""What a host has that was given the public key A alone."""
ONE = KeySet("example", 1, 1, (PEM_A,))
TWO = KeySet("example", 2, 2, (PEM_A, PEM_B))
THREE = KeySet("example", 3, 2, (PEM_B, PEM_C))
CHAIN = (keyset.sign(ONE, [A]), keyset.sign(TWO, [A, B]), keyset.sign(THREE, [A, B, C]))
DATA = keyset.write(CHAIN)


def refusal(ours: KeySet, links: Sequence[Link] | bytes) -> str:
    data = links if isinstance(links, bytes) else keyset.write(links)
    with pytest.raises(KeySetError) as caught:
        keyset.advance(ours, keyset.read(data))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ours", [ZERO, ONE, TWO, THREE], ids=lambda one: f"from {one.version}")
def test_a_host_goes_on_from_wherever_it_is_to_the_newest(ours: KeySet) -> None:
    assert keyset.advance(ours, keyset.read(DATA)) == THREE


@pytest.mark.parametrize("start", [1, 2])
def test_old_sets_may_be_left_out_for_a_host_that_has_them(start: int) -> None:
    short = keyset.read(keyset.write(CHAIN[start:]))
    assert keyset.advance(CHAIN[start - 1].key_set, short) == THREE
    assert keyset.advance(CHAIN[start].key_set, short) == THREE


def test_a_gap_is_not_jumped() -> None:
    assert "begin with version 3, this host has 1" in refusal(ONE, CHAIN[2:])
    assert "a public key alone" in refusal(ZERO, CHAIN[1:])


@pytest.mark.parametrize(
    ("forged", "says"),
    [
        # The threshold of the set before, and that of the new one, each with a signature too few.
        ((CHAIN[0], keyset.sign(TWO, [B])), "0 of the 1 signatures that it needs by keys of version 1"),
        ((CHAIN[0], keyset.sign(TWO, [A])), "1 of the 2 signatures that it needs by keys of version 2"),
        ((*CHAIN[:2], keyset.sign(THREE, [B, C])), "1 of the 2 signatures that it needs by keys of version 2"),
        ((*CHAIN[:2], keyset.sign(THREE, [A, B])), "1 of the 2 signatures that it needs by keys of version 3"),
        ((CHAIN[0], keyset.sign(TWO, [])), "0 of the 1"),
        ((keyset.sign(ONE, []),), "0 of the 1"),
        ((keyset.sign(ONE, [B]),), "0 of the 1"),
        # One more than exactly one more, and another fleet's.
        ((CHAIN[0], keyset.sign(replace(TWO, version=3), [A, B])), "version 3 of the key set follows version 1"),
        ((CHAIN[0], keyset.sign(replace(TWO, version=1), [A, B])), "version 1 of the key set follows version 1"),
        ((CHAIN[0], keyset.sign(replace(TWO, fleet="other"), [A, B])), "is for fleet other, not example"),
        ((keyset.sign(replace(ONE, fleet="other"), [A]),), "are for fleet other, this is example"),
        # A set that everything is right with, and that is not ours.
        ((keyset.sign(replace(ONE, keys=(PEM_D,)), [D]),), "0 of the 1 signatures that it needs by keys of version 0"),
        # A signature that counts nowhere.
        ((CHAIN[0], keyset.sign(TWO, [A, B, D])), "a signature that is wrong"),
        (tuple(reversed(CHAIN)), "follows version 3"),
        ((CHAIN[0], CHAIN[0]), "follows version 1"),
    ],
    ids=range(15),
)  # fmt: skip
def test_a_set_that_does_not_follow_is_refused(forged: tuple[Link, ...], says: str) -> None:
    assert says in refusal(ZERO, forged)


def test_another_history_of_the_same_fleet_is_refused() -> None:
    fork = keyset.sign(replace(TWO, keys=(PEM_A, PEM_D)), [A, D])
    assert "version 2 is not the set that this host trusts" in refusal(TWO, (CHAIN[0], fork))
    longer = keyset.sign(KeySet("example", 3, 1, (PEM_D,)), [A, D])
    assert "version 2 is not the set" in refusal(TWO, (CHAIN[0], fork, longer))
    assert "version 3 is not the set" in refusal(THREE, (CHAIN[0], fork, longer))


def test_an_old_chain_takes_nobody_back() -> None:
    assert "they end with version 2, this host has 3 already" in refusal(THREE, CHAIN[:2])


def test_a_key_that_signs_twice_counts_once() -> None:
    envelope = keyset.sign(TWO, [A, A]).envelope
    assert len(envelope.signatures) == 1
    (signature,) = envelope.signatures.values()
    envelope.signatures["other"] = type(signature)("other", signature.signature)
    assert keyset.missing(Link(TWO, envelope), ONE) is not None
    document = json.loads(keyset.write([CHAIN[0]]))
    document[0]["signatures"] *= 2
    assert "not a list of DSSE envelopes" in refusal(ZERO, jsonfile.canonical(document))


@pytest.mark.parametrize(
    ("key_set", "says"),
    [
        (replace(TWO, keys=(PEM_A, PEM_A)), "stands twice"),
        (replace(TWO, threshold=3), "3 must sign and there are only 2 keys"),
        (replace(TWO, threshold=0), "threshold"),
        (replace(TWO, threshold=17), "threshold"),
        (replace(TWO, keys=()), "keys"),
        (replace(TWO, version=0), "version"),
        (replace(TWO, fleet="A"), "fleet"),
        (replace(TWO, keys=(PEM_A, PRIVATE[1].decode())), "keys.1"),
        (replace(TWO, keys=(PEM_A, PEM_B + "\n")), "keys.1"),
        (replace(TWO, keys=(PEM_A, PEM_B.replace("MCowBQYDK2VwAyEA", "MCowBQYDK2VwAyEB"))), "key of the set"),
    ],
    ids=range(10),
)
def test_a_set_that_could_not_be_is_neither_signed_nor_read(key_set: KeySet, says: str) -> None:
    with pytest.raises(KeySetError, match=says):
        keyset.sign(key_set, [A, B])
    envelope = Envelope(key_set.payload(), PAYLOAD_TYPE, {})
    envelope.sign(A)
    envelope.sign(B)
    assert says in refusal(ONE, keyset.write([CHAIN[0], Link(key_set, envelope)]))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null\n", b"[]\n", b"{}\n", b"[null]\n", b"[[]]\n", b'["x"]\n', b"\xff", b"[" * 60_000, b'{"a":1}\n',
        DATA[:-1], DATA + b"\n", b" " + DATA, DATA.replace(b"[", b"[ ", 1), DATA.replace(b"==", b"=\\u003d"),
        DATA.replace(PAYLOAD_TYPE.encode(), b"application/vnd.tidegate.release+json"),
        b"[" + b" " * KEYS_MAX_BYTES + b"]",
    ],
    ids=range(17),
)  # fmt: skip
def test_what_is_no_chain_is_refused_in_one_line(data: bytes) -> None:
    assert len(refusal(ZERO, data)) < 200


def test_a_payload_has_one_spelling() -> None:
    spaced = json.dumps(json.loads(ONE.payload())).encode()
    envelope = Envelope(spaced, PAYLOAD_TYPE, {})
    envelope.sign(A)
    assert "not canonical" in refusal(ZERO, keyset.write([Link(ONE, envelope)]))


@settings(deadline=None, max_examples=500)
@given(at=st.integers(0, len(DATA) - 1), bits=st.integers(1, 255))
def test_no_byte_of_a_chain_may_change(at: int, bits: int) -> None:
    changed = DATA[:at] + bytes([DATA[at] ^ bits]) + DATA[at + 1 :]
    for ours in (ZERO, ONE, TWO, THREE):
        refusal(ours, changed)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(DATA)), st.integers(0, 8), st.binary(max_size=8))
def test_no_cut_and_no_insertion_is_accepted(at: int, cut: int, inserted: bytes) -> None:
    changed = DATA[:at] + inserted + DATA[at + cut :]
    if changed != DATA:
        refusal(ZERO, changed)


_leaves = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["AAAA", PAYLOAD_TYPE])
)
_hostile = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["keyid", "sig", "payload"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(_hostile, st.sampled_from(["payload", "payloadType", "signatures", "keyid", "sig", ""]))
def test_a_hostile_member_is_refused_and_nothing_else_is_raised(value: Any, where: str) -> None:
    document = json.loads(DATA)
    if where:
        (document[1]["signatures"][0] if where in ("keyid", "sig") else document[1])[where] = value
    else:
        document[1] = value
    if document != json.loads(DATA):
        refusal(ZERO, jsonfile.canonical(document))


@settings(deadline=None, max_examples=200)
@given(_hostile, st.sampled_from(["format", "fleet", "version", "threshold", "keys", "more"]))
def test_a_hostile_set_is_refused_even_signed(value: Any, where: str) -> None:
    document = json.loads(TWO.payload())
    if document.get(where, ...) == value:
        return
    payload = jsonfile.canonical(document | {where: value})
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(A)
    envelope.sign(B)
    refusal(ZERO, keyset.write([CHAIN[0], Link(TWO, envelope)]))


def test_an_envelope_of_another_type_is_no_key_set() -> None:
    """Whoever signs releases with a key does not hand over the fleet by it."""
    envelope = seal(ONE.payload(), "application/vnd.tidegate.release+json", [A])
    assert "of another type" in refusal(ZERO, keyset.write([Link(ONE, envelope)]))


def test_a_chain_past_its_bound_is_not_read() -> None:
    links = [CHAIN[0]]
    while len(data := jsonfile.canonical([link.envelope.to_dict() for link in links])) <= KEYS_MAX_BYTES:
        links += [keyset.sign(replace(ONE, version=len(links) + n), [A]) for n in range(1, 8)]
    assert f"at most {KEYS_MAX_BYTES} are read" in refusal(ZERO, data)


def test_a_chain_that_grows_leaves_its_oldest_sets_out() -> None:
    links = [CHAIN[0]]
    while len(keyset.write(links)) > KEYS_MAX_BYTES - 4096 or len(links) < 60:
        links.append(keyset.sign(replace(ONE, version=len(links) + 1), [A]))
    while keyset.read(keyset.write(links))[0].key_set.version == 1:
        links.append(keyset.sign(replace(ONE, version=len(links) + 1), [A]))
    data = keyset.write(links)
    assert len(data) <= KEYS_MAX_BYTES
    kept = keyset.read(data)
    assert kept[-1].key_set.version == len(links) > 60
    assert keyset.advance(links[kept[0].key_set.version - 2].key_set, kept) == links[-1].key_set


@pytest.mark.parametrize("keys", [1, 16])
def test_the_largest_set_fits(keys: int) -> None:
    pairs = [generate_key() for _ in range(keys)]
    largest = KeySet("f" * 63, 2**53 - 1, keys, tuple(public.decode() for _, public in pairs))
    link = keyset.sign(largest, [load_signer(private) for private, _ in pairs])
    assert keyset.read(keyset.write([link])) == (link,)
    assert len(keyset.write([link])) < KEYS_MAX_BYTES / 8


def test_a_public_key_is_read_as_pem_and_as_openssh_writes_it() -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    key = load_pem_public_key(PUBLIC[0])
    line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" bob@example.net\n"
    assert public_pem(line) == public_pem(PUBLIC[0]) == PEM_A
    assert load_public_key(public_pem(line).encode()).keyid == A.public_key.keyid
    for data in (b"", b"ssh-ed25519", b"ssh-ed25519 AAAA", b"ssh-rsa AAAA x", PRIVATE[0], b"\xff", line[:40]):
        with pytest.raises(ValueError, match="not an ed25519 public key"):
            public_pem(data)


_SIGNERS = (A, B, C, D)
_PEMS = (PEM_A, PEM_B, PEM_C, PEM_D)
_members = st.sets(st.integers(0, 3), min_size=1)
_steps = st.lists(
    st.tuples(_members, st.integers(1, 3), st.sets(st.integers(0, 3)), st.sampled_from([1, 1, 1, 1, 0, 2])),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=300)
@given(_steps, _members, st.integers(1, 2))
def test_a_chain_is_accepted_exactly_when_an_independent_reading_of_the_rule_says_so(
    steps: list[tuple[set[int], int, set[int], int]], trusted: set[int], threshold: int
) -> None:
    threshold = min(threshold, len(trusted))
    ours = KeySet("example", 0, threshold, tuple(_PEMS[n] for n in sorted(trusted)))
    holders, needed, version, right = trusted, threshold, 0, True
    links = []
    for members, wanted, signers, step in steps:
        wanted = min(wanted, len(members))
        follows = max(version + step, 1) == version + 1
        version = max(version + step, 1)
        key_set = KeySet("example", version, wanted, tuple(_PEMS[n] for n in sorted(members)))
        links.append(keyset.sign(key_set, [_SIGNERS[n] for n in sorted(signers)]))
        right &= follows and len(signers & holders) >= needed and len(signers & members) >= wanted
        # No signature but by a key of either set; of the first set of a file, by its own keys.
        right &= signers <= (members | holders if len(links) > 1 else members)
        holders, needed = members, wanted
    if right:
        assert keyset.advance(ours, keyset.read(keyset.write(links))) == links[-1].key_set
    else:
        refusal(ours, links)
