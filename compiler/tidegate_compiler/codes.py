"""Every diagnostic code: its short name and its severity. Codes are stable; a retired one is never reused.

`docs/diagnostics.md` has a section for each, and `tests/inventories/bad/` a folder for each.
"""

from __future__ import annotations

from dataclasses import dataclass

ERROR = "error"
WARNING = "warning"


@dataclass(frozen=True)
class Code:
    """A kind of problem: the code users rely on, a short name for it, and its severity."""

    code: str
    slug: str
    severity: str = ERROR


CODES: dict[str, Code] = {
    entry.code: entry
    for entry in (
        # Files and YAML
        Code("TG001", "unreadable-file"),
        Code("TG002", "symlink"),
        Code("TG003", "bad-text"),
        Code("TG004", "unexpected-file"),
        Code("TG005", "yaml-syntax"),
        Code("TG006", "yaml-feature"),
        Code("TG007", "duplicate-key"),
        Code("TG008", "too-deep"),
        Code("TG009", "wrong-shape"),
        Code("TG010", "missing-overlay"),
        # Fields and names
        Code("TG011", "unknown-field"),
        Code("TG012", "missing-field"),
        Code("TG013", "reserved-field"),
        Code("TG014", "schema-violation"),
        Code("TG015", "empty-list"),
        Code("TG016", "repeated-value"),
        Code("TG017", "bad-name"),
        Code("TG018", "duplicate-name"),
        # Values
        Code("TG020", "bad-key"),
        Code("TG021", "reused-key"),
        Code("TG022", "bad-address"),
        Code("TG023", "host-bits"),
        Code("TG024", "not-one-host"),
        Code("TG025", "bad-endpoint"),
        Code("TG026", "bad-ports"),
        Code("TG027", "bad-time"),
        Code("TG028", "reused-endpoint"),
        Code("TG029", "special-address"),
        # References
        Code("TG030", "unknown-reference"),
        Code("TG031", "bad-selector"),
        Code("TG032", "client-to-client"),
        Code("TG033", "not-a-member"),
        Code("TG034", "nested-group"),
        # Addresses and routes
        Code("TG040", "outside-overlay"),
        Code("TG041", "reused-address"),
        Code("TG042", "network-in-overlay"),
        Code("TG043", "endpoint-in-tunnel"),
        Code("TG044", "no-gateway"),
        Code("TG045", "overlapping-gateways"),
        Code("TG046", "no-common-family"),
        Code("TG047", "behind-no-gateway"),
        Code("TG048", "contains-gateway"),
        Code("TG049", "overlapping-prefixes"),
        # Policies and time
        Code("TG050", "no-ports"),
        Code("TG051", "no-common-ports"),
        Code("TG052", "empty-window"),
        Code("TG053", "deny-expires", WARNING),
        Code("TG054", "never-matches", WARNING),
        Code("TG055", "shadowed", WARNING),
        Code("TG056", "redundant", WARNING),
        Code("TG057", "expired", WARNING),
    )
}
