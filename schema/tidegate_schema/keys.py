"""WireGuard public keys and the client ID derived from them.

    client ID = first 16 bytes of BLAKE2s-256(raw 32-byte public key), as 32 lowercase hex digits

A new key is a new client ID. The ID is an identifier and nothing else: it grants nothing by itself.
"""

from __future__ import annotations

import binascii
import hashlib

KEY_BYTES = 32
CLIENT_ID_BYTES = 16

# The points of small order on Curve25519 and its twist, little-endian, from https://cr.yp.to/ecdh.html
# ("Validate public keys?"): with one of them as a peer's key the shared secret is known to everybody.
_P = 2**255 - 19
_ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
LOW_ORDER_POINTS = frozenset({0, 1, *_ORDER_8, _P - 1, _P, _P + 1})
# X25519 ignores the top bit (RFC 7748, section 5), so each point has two spellings.
LOW_ORDER_KEYS = frozenset(
    (point | top).to_bytes(KEY_BYTES, "little") for point in LOW_ORDER_POINTS for top in (0, 1 << 255)
)

# The 43rd digit of 32 bytes ends in two bits that stand for nothing; in canonical base64 (RFC 4648, 3.5) they are 0.
_LAST_DIGITS = "AEIMQUYcgkosw048"
CANONICAL_PATTERN = rf"[A-Za-z0-9+/]{{42}}[{_LAST_DIGITS}]="
"""What the canonical base64 of 32 bytes looks like, as a part of a regular expression."""


def parse_public_key(text: str) -> bytes:
    """Return the raw 32 bytes of a base64 WireGuard public key.

    Raises ValueError with a one-line reason that says how to mend it.
    """
    if len(text) != 44 or not text.endswith("="):
        raise ValueError(
            f"a WireGuard public key is 44 characters of base64 ending in '=', not {len(text)} "
            "characters; copy the output of 'wg pubkey'"
        )
    try:
        raw = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error is one, and so is text beyond ASCII
        raise ValueError("not base64; copy the output of 'wg pubkey' as it is") from None
    if len(raw) != KEY_BYTES or text[-2] not in _LAST_DIGITS:
        raise ValueError("not the canonical base64 of 32 bytes; copy the output of 'wg pubkey' as it is")
    if raw in LOW_ORDER_KEYS:
        raise ValueError("a low-order point: no secret can be agreed with it; make a new key pair")
    return raw


def client_id(public_key: bytes) -> str:
    """Return the client ID of a raw 32-byte public key: 32 lowercase hex digits."""
    if len(public_key) != KEY_BYTES:
        raise ValueError(f"a public key is {KEY_BYTES} bytes, not {len(public_key)}")
    return hashlib.blake2s(public_key).digest()[:CLIENT_ID_BYTES].hex()
