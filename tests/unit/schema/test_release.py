"""The signed envelope: what is accepted, and by which name each thing else is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope

from tidegate_schema import jsonfile
from tidegate_schema.release import (
    PAYLOAD_TYPE,
    FileEntry,
    Release,
    ReleaseError,
    files_digest,
    generate_key,
    load_public_key,
    load_signer,
    open_envelope,
    sign,
)

PRIVATE, PUBLIC = generate_key()
SIGNER, TRUSTED = load_signer(PRIVATE), load_public_key(PUBLIC)
OTHER_PRIVATE, OTHER_PUBLIC = generate_key()
OTHER_SIGNER, OTHER_TRUSTED = load_signer(OTHER_PRIVATE), load_public_key(OTHER_PUBLIC)
FILES = {"wg0.conf": FileEntry.of(b"[Interface]\n")}
RELEASE = Release("example", "client", "alice-laptop", 7, 1_900_000_000, "commit 1234", FILES)
SIGNED = sign(RELEASE, SIGNER)


def refusal(data: bytes, trusted: Any = (TRUSTED,), threshold: int = 1) -> str:
    with pytest.raises(ReleaseError) as caught:
        open_envelope(data, trusted, threshold)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(caught.value.name + ": ")
    return caught.value.name


def signed_payload(document: Any, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Return an envelope that a trusted key signed over whatever is given."""
    payload = document if isinstance(document, bytes) else jsonfile.canonical(document)
    envelope = Envelope(payload, payload_type, {})
    envelope.sign(SIGNER)
    return jsonfile.canonical(envelope.to_dict())


def statement(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(RELEASE.payload())
    return {key: value for key, value in (document | changes).items() if value is not ...}


def test_what_is_signed_opens_to_the_same_statement() -> None:
    assert open_envelope(SIGNED, [TRUSTED]) == RELEASE
    assert open_envelope(SIGNED, [OTHER_TRUSTED, TRUSTED]) == RELEASE
    assert open_envelope(SIGNED, [TRUSTED, TRUSTED]) == RELEASE


def test_a_threshold_counts_distinct_keys() -> None:
    both = sign(RELEASE, [SIGNER, OTHER_SIGNER])
    assert open_envelope(both, [TRUSTED, OTHER_TRUSTED], 2) == RELEASE
    assert open_envelope(both, [TRUSTED]) == RELEASE
    for data, trusted in (
        (SIGNED, [TRUSTED, OTHER_TRUSTED]),
        (sign(RELEASE, [SIGNER, SIGNER]), [TRUSTED, OTHER_TRUSTED]),
        (both, [TRUSTED, TRUSTED]),
        (both, [TRUSTED]),
    ):
        assert refusal(data, trusted, 2) == "too-few-signatures"
    assert refusal(SIGNED, [OTHER_TRUSTED], 2) == "wrong-key"
    assert refusal(SIGNED, [], 0) == "wrong-key"
    third = json.loads(both)
    third["signatures"][1]["sig"] = third["signatures"][0][
        "sig"
    ]  # a trusted key's ID over another's signature
    assert refusal(jsonfile.canonical(third), [TRUSTED, OTHER_TRUSTED], 2) == "too-few-signatures"


def test_signing_twice_gives_the_same_bytes() -> None:
    assert sign(RELEASE, SIGNER) == SIGNED


def test_the_digest_covers_every_file_and_nothing_else() -> None:
    digest = files_digest(FILES)
    assert digest == files_digest(dict(FILES))
    assert digest != files_digest({"wg0.conf": FileEntry.of(b"[Interface]")})
    assert digest != files_digest({"peers.json": FILES["wg0.conf"]})
    assert digest != files_digest(FILES | {"policy.json": FileEntry.of(b"")})


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("malformed-envelope", b""),
        ("malformed-envelope", b"\xff"),
        ("malformed-envelope", b"null"),
        ("malformed-envelope", b"[]"),
        ("malformed-envelope", b"{}"),
        ("malformed-envelope", b'"x"'),
        ("malformed-envelope", b"[" * 100_000),
        ("malformed-envelope", RELEASE.payload()),
        ("malformed-envelope", SIGNED[:-1]),
        ("malformed-envelope", SIGNED + b"\n"),
        ("malformed-envelope", b" " + SIGNED),
        ("malformed-envelope", SIGNED.replace(b"{", b'{"more":1,', 1)),
        ("malformed-envelope", SIGNED.replace(b"==", b"=\\u003d")),
        ("unsigned", jsonfile.canonical(Envelope(RELEASE.payload(), PAYLOAD_TYPE, {}).to_dict())),
        ("wrong-type", signed_payload(RELEASE.payload(), "application/vnd.in-toto+json")),
        ("wrong-type", signed_payload(RELEASE.payload(), PAYLOAD_TYPE + "\n")),
        ("wrong-key", sign(RELEASE, OTHER_SIGNER)),
    ],
)
def test_an_envelope_is_refused_by_name(name: str, data: bytes) -> None:
    assert refusal(data) == name


def test_nobody_trusted_means_nothing_is_accepted() -> None:
    assert refusal(SIGNED, []) == "wrong-key"


def test_a_signature_of_another_statement_is_refused() -> None:
    other = Release("example", "client", "alice-laptop", 8, 1_900_000_000, "commit 1234", FILES)
    mixed = json.loads(SIGNED) | {"payload": json.loads(sign(other, SIGNER))["payload"]}
    assert refusal(jsonfile.canonical(mixed)) == "wrong-key"


def test_a_trusted_keyid_over_another_signature_is_refused() -> None:
    mixed = json.loads(sign(RELEASE, OTHER_SIGNER))
    mixed["signatures"][0]["keyid"] = json.loads(SIGNED)["signatures"][0]["keyid"]
    assert refusal(jsonfile.canonical(mixed)) == "wrong-key"


def test_the_signature_is_checked_before_the_payload_is_read() -> None:
    envelope = Envelope(b"\xffnot even JSON", PAYLOAD_TYPE, {})
    envelope.sign(OTHER_SIGNER)
    assert refusal(jsonfile.canonical(envelope.to_dict())) == "wrong-key"


@settings(deadline=None, max_examples=300)
@given(at=st.integers(0, len(SIGNED) - 1), bits=st.integers(1, 255))
def test_no_byte_of_an_envelope_may_change(at: int, bits: int) -> None:
    refusal(SIGNED[:at] + bytes([SIGNED[at] ^ bits]) + SIGNED[at + 1 :])


def test_not_even_a_spare_bit_of_base64_may_change() -> None:
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    document = json.loads(SIGNED)
    assert document["signatures"][0]["sig"].endswith("==")
    at = SIGNED.index(b'=="') - 1
    other = SIGNED[:at] + bytes([alphabet[alphabet.index(SIGNED[at]) ^ 1]]) + SIGNED[at + 1 :]
    lenient = json.loads(other)["signatures"][0]["sig"]
    assert base64.b64decode(lenient) == base64.b64decode(document["signatures"][0]["sig"])
    assert refusal(other) == "malformed-envelope"


@settings(deadline=None, max_examples=200)
@given(st.integers(0, len(SIGNED)), st.integers(0, 8), st.binary(max_size=8))
def test_no_cut_and_no_insertion_is_accepted(at: int, cut: int, inserted: bytes) -> None:
    changed = SIGNED[:at] + inserted + SIGNED[at + cut :]
    if changed != SIGNED:
        refusal(changed)


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
hostile = st.recursive(
    leaves | st.text(max_size=8) | st.sampled_from(["AAAA", "A", "=", "\n", PAYLOAD_TYPE]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["keyid", "sig", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
members = {"payload": hostile, "payloadType": hostile | st.just(PAYLOAD_TYPE), "signatures": hostile}
envelopes = st.fixed_dictionaries({}, optional=members | {"more": hostile})


@settings(deadline=None, max_examples=300)
@given(envelopes)
@example({"payload": "AAAA", "payloadType": PAYLOAD_TYPE, "signatures": [{"keyid": [], "sig": "AAAA"}]})
@example({"payload": "AAAA", "payloadType": PAYLOAD_TYPE, "signatures": [{"keyid": 1, "sig": ""}]})
@example({"payload": "AAAA", "payloadType": {}, "signatures": [{"keyid": "k", "sig": "AAAA"}]})
def test_a_hostile_envelope_is_refused_and_nothing_else_is_raised(document: Any) -> None:
    refusal(jsonfile.canonical(document))


@settings(deadline=None, max_examples=200)
@given(hostile, st.sampled_from(["keyid", "sig", "payload", "payloadType", "signatures"]))
def test_a_hostile_member_is_refused_and_nothing_else_is_raised(value: Any, where: str) -> None:
    document = json.loads(SIGNED)
    (document["signatures"][0] if where in ("keyid", "sig") else document)[where] = value
    if document != json.loads(SIGNED):
        refusal(jsonfile.canonical(document))


BAD_STATEMENTS: list[tuple[str, Any]] = [
    ("unknown-format", statement(format=3)),
    ("unknown-format", statement(format="1")),
    ("unknown-format", statement(format=...)),
    ("unknown-format", statement(format=None)),
    ("malformed-payload", statement(format=True)),
    ("malformed-payload", [statement()]),
    ("malformed-payload", None),
    ("malformed-payload", b"\xff"),
    ("malformed-payload", b'{"format":1,"format":1}'),
    ("malformed-payload", b"[" * 20_000),
    ("malformed-payload", statement(authz_mode="observe")),
    ("malformed-payload", statement(logging_enabled=True)),
    *(("malformed-payload", statement(**{name: ...})) for name in statement() if name != "format"),
    *(("malformed-payload", statement(fleet=name)) for name in ("", "A", "a\n", "../x", 1, None)),
    *(("malformed-payload", statement(host=name)) for name in ("", "..", "a\n", "a/b", [], "x" * 64)),
    *(("malformed-payload", statement(kind=kind)) for kind in ("", "Client", "control", None)),
    *(("malformed-payload", statement(key_set=n)) for n in (-1, 1.0, "1", True, None, 2**53)),
    ("malformed-payload", statement(format=1)),
    ("malformed-payload", statement(format=1.0, key_set=...)),
    *(("malformed-payload", statement(serial=n)) for n in (0, -1, 1.0, "1", True, None, 2**53)),
    *(("malformed-payload", statement(not_after=n)) for n in (-1, 1e9, "2030", None, 253402300800)),
    *(("malformed-payload", statement(source=s)) for s in ("a\n", "é", "\x1b[2J", "x" * 201, None)),
    *(
        ("malformed-payload", statement(files=files))
        for files in (
            {}, [], None, {"wg0.conf": None}, {"../wg0.conf": {"sha256": "0" * 64, "size": 0}},
            {"/etc/passwd": {"sha256": "0" * 64, "size": 0}}, {"release.json": {"sha256": "0" * 64, "size": 0}},
            {"wg0.conf\n": {"sha256": "0" * 64, "size": 0}}, {"wg0.conf": {"sha256": "0" * 63, "size": 0}},
            {"wg0.conf": {"sha256": "0" * 64 + "\n", "size": 0}}, {"wg0.conf": {"sha256": "0" * 64, "size": -1}},
            {"wg0.conf": {"sha256": "0" * 64, "size": 1.5}}, {"wg0.conf": {"sha256": "0" * 64, "size": 5.0}},
            {"wg0.conf": {"sha256": "0" * 64, "size": 1 << 40}}, {"wg0.conf": {"sha256": "0" * 64}},
            {"wg0.conf": {"sha256": "A" * 64, "size": 0}}, {"wg0.conf": {"sha256": "0" * 64, "size": 0, "more": 0}},
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "document"), BAD_STATEMENTS)
def test_a_hostile_statement_is_refused_by_name_even_signed(name: str, document: Any) -> None:
    assert refusal(signed_payload(document)) == name


def test_a_refusal_is_short_whatever_it_quotes() -> None:
    with pytest.raises(ReleaseError) as caught:
        open_envelope(signed_payload(statement(source="x" * 30_000)), [TRUSTED])
    assert len(str(caught.value)) < 300


def ecdsa() -> tuple[bytes, bytes]:
    key = generate_private_key(SECP256R1())
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


@pytest.mark.parametrize(
    ("load", "pem"),
    [
        (load_signer, b""),
        (load_signer, b"x" * 100),
        (load_signer, PUBLIC),
        (load_signer, ecdsa()[0]),
        (load_public_key, b""),
        (load_public_key, b"\xff\x00"),
        (load_public_key, PRIVATE),
        (load_public_key, ecdsa()[1]),
        pytest.param(load_public_key, PUBLIC[:60], id="cut short"),
    ],
)
def test_what_is_no_ed25519_key_in_pem_is_refused_in_one_line(
    load: Callable[[bytes], Any], pem: bytes
) -> None:
    with pytest.raises(ValueError, match="ed25519") as caught:
        load(pem)
    assert "\n" not in str(caught.value)
