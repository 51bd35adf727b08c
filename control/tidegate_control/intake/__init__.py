"""Log intake: what gateways post is read strictly, stored once, and acknowledged when durable; it decides nothing.

POST ─► bodies ─► lines / otlp ─► commit ─► duck | clickhouse ─► ACK
        bounded   strict, by      one commit   rows and accounts
                  identity        for many     in one go
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from tidegate_control.app import Services


def routes(services: Services) -> Sequence[BaseRoute]:
    """Return the routes of this room; who only reads a store does without what they need."""
    from tidegate_control.intake import desk

    return desk.routes(services)
