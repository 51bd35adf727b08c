"""A guard against private keys in forms. Only public ones are asked for, and the two look the same.

What is certainly private is refused. Beyond that there is a sign: `wg genkey` clamps a private key (RFC 7748, section
5: three bits of the first byte are 0, of the last byte the highest is 0 and the next one 1), and of public keys one in
32 looks so by chance. Such a key is taken only from somebody who says that it is the public one. A text that is refused
or suspected is never sent back in a page.
"""

from __future__ import annotations

import re

from tidegate_schema.keys import parse_public_key

REFUSED = (
    "this holds a private key, and private keys stay on their hosts: make a new pair there, since this one has been "
    "sent around, and paste its public key"
)
SUSPECTED = (
    "this looks like a private key, as every 32nd public key does; compare it with what the host prints, then paste it "
    "again and confirm that it is the public one"
)
_MARKS = re.compile(r"private[ _-]?key|begin openssh|preshared", re.IGNORECASE)


def is_private(text: str) -> bool:
    """Tell whether a text says itself that it is, or holds, a secret key."""
    return _MARKS.search(text) is not None


def may_be_private(text: str) -> bool:
    """Tell whether a key has the bits of a clamped private key."""
    try:
        key = parse_public_key(text.strip())
    except ValueError:
        return False
    return key[0] & 7 == 0 and key[31] & 0xC0 == 0x40


def problem(text: str, is_confirmed: bool) -> str | None:
    """Return why a text is not taken as a public key here, None where nothing speaks against it."""
    if is_private(text):
        return REFUSED
    return SUSPECTED if may_be_private(text) and not is_confirmed else None
