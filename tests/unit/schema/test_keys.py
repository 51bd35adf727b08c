"""Public keys and client IDs, against hashlib and against cryptography's X25519."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from tidegate_schema.keys import LOW_ORDER_POINTS, client_id, parse_public_key

BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def spellings(point: int) -> list[bytes]:
    """Return the point with and without the top bit, which X25519 ignores."""
    return [point.to_bytes(32, "little"), (point | 1 << 255).to_bytes(32, "little")]


@given(st.binary(min_size=32, max_size=32))
def test_the_client_id_is_the_head_of_blake2s(raw: bytes) -> None:
    hasher = hashlib.new("blake2s256")
    hasher.update(raw)
    assert client_id(raw) == hasher.hexdigest()[:32]


def test_the_client_id_of_a_known_key() -> None:
    assert client_id(bytes(range(32))) == "05825607d7fdf2d82ef4c3c8c2aea961"


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_has_no_client_id(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        client_id(bytes(length))


def test_a_generated_key_is_accepted() -> None:
    raw = X25519PrivateKey.generate().public_key().public_bytes_raw()
    assert parse_public_key(encoded(raw)) == raw


@given(st.binary(min_size=32, max_size=32))
def test_what_is_accepted_agrees_on_a_secret_and_what_is_refused_does_not(raw: bytes) -> None:
    private = X25519PrivateKey.from_private_bytes(b"\x41" * 32)
    try:
        assert parse_public_key(encoded(raw)) == raw
    except ValueError:
        with pytest.raises(ValueError, match="shared key"):
            private.exchange(X25519PublicKey.from_public_bytes(raw))
    else:
        assert private.exchange(X25519PublicKey.from_public_bytes(raw))


@pytest.mark.parametrize(
    "raw", [raw for point in sorted(LOW_ORDER_POINTS) for raw in spellings(point)], ids=bytes.hex
)
def test_a_low_order_point_is_refused_and_x25519_refuses_it_too(raw: bytes) -> None:
    with pytest.raises(ValueError, match="low-order point"):
        parse_public_key(encoded(raw))
    with pytest.raises(ValueError, match="shared key"):
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(raw))


def test_the_seven_points_are_all_there_are() -> None:
    # Every residue of small order, in every spelling below 2**255.
    prime = 2**255 - 19
    residues = {point % prime for point in LOW_ORDER_POINTS}
    assert len(residues) == 5
    assert {r + k * prime for r in residues for k in (0, 1) if r + k * prime < 2**255} == LOW_ORDER_POINTS


@given(st.binary(min_size=32, max_size=32), st.sampled_from("BCD"))
def test_base64_with_other_spare_bits_is_refused(raw: bytes, spare: str) -> None:
    text = encoded(raw)
    at = BASE64.index(text[-2])
    other = text[:-2] + BASE64[at + " BCD".index(spare)] + "="
    assert base64.b64decode(other) == raw  # the same key to a lenient reader
    with pytest.raises(ValueError, match="canonical"):
        parse_public_key(other)


GOOD = encoded(bytes(range(32)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD[:-1],
        GOOD + "\n",
        " " + GOOD,
        GOOD + "=",
        GOOD[:20] + "\n" + GOOD[20:-1] + "=",
        GOOD[:-3] + "===",
        GOOD[:-2] + "-=",
        GOOD[:-2] + "_=",
        GOOD[:5] + "é" + GOOD[6:],
        GOOD[:5] + "\u2028" + GOOD[6:],
        GOOD[:5] + "\x00" + GOOD[6:],
        GOOD[:5] + "!" + GOOD[6:],
        bytes(range(32)).hex(),
    ],
)
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="wg pubkey") as caught:
        parse_public_key(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60) | st.text(alphabet=BASE64 + "=\n", min_size=43, max_size=45))
def test_any_text_is_a_key_or_a_value_error(text: str) -> None:
    problem = ""
    try:
        raw = parse_public_key(text)
    except ValueError as error:
        problem = str(error)
    else:
        assert encoded(raw) == text
    assert "\n" not in problem
