"""The time chart: bars of allowed and denied, as SVG without script, style or font of its own. Pure.

max |        ▂            a bar is a bucket; denied stands on top of allowed and is striped,
    |  ▂  █  █     ▂      so that it is told apart without colour
  0 +-----------------
    12:00          18:00
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from tidegate_compiler.times import format_instant

WIDTH, HEIGHT = 960, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 8, 10, 26
_LABELS = 4
_STEP = 6


@dataclass(frozen=True)
class Bar:
    """A bucket: where it starts (Unix second), and how many were allowed and denied."""

    start: int
    allowed: int
    denied: int


def chart(bars: Sequence[Bar], title: str) -> str:
    """Return the chart as an SVG element; the page's style sheet colours it."""
    return "".join(_chart(bars, title))


def _chart(bars: Sequence[Bar], title: str) -> Iterator[str]:
    most = nice(max((bar.allowed + bar.denied for bar in bars), default=0))
    high = HEIGHT - _TOP - _BOTTOM
    base = HEIGHT - _BOTTOM
    wide = (WIDTH - _LEFT - _RIGHT) / max(1, len(bars))
    yield f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
    for part in (0, most // 2, most) if most > 1 else (0, most):
        y = base - high * part / most
        yield f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(part)}</text>'
    for index, bar in enumerate(bars):
        x = _LEFT + index * wide
        allowed, denied = high * bar.allowed / most, high * bar.denied / most
        yield f"<g><title>{format_instant(bar.start)}: {bar.allowed} allowed, {bar.denied} denied</title>"
        if bar.allowed:
            yield _box("allow", x, base - allowed, wide, allowed)
        if bar.denied:
            top = base - allowed - denied
            yield _box("deny", x, top, wide, denied)
            yield from _stripes(x, top, wide, denied)
        yield "</g>"
    for index in range(0, len(bars), max(1, len(bars) // _LABELS)):
        x = _LEFT + index * wide
        yield f'<text x="{x:.1f}" y="{HEIGHT - 8}">{format_instant(bars[index].start)[5:16].replace("T", " ")}</text>'
    yield "</svg>"


def _box(kind: str, x: float, y: float, wide: float, high: float) -> str:
    return f'<rect class="{kind}" x="{x + 1:.1f}" y="{y:.1f}" width="{max(1.0, wide - 2):.1f}" height="{high:.1f}"/>'


def _stripes(x: float, top: float, wide: float, high: float) -> Iterator[str]:
    for step in range(_STEP // 2, int(high), _STEP):
        y = top + step
        yield f'<line class="stripe" x1="{x + 1:.1f}" x2="{x + wide - 1:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'


def nice(most: int) -> int:
    """Return the least of 1, 2 or 5 times a power of ten that is not below a number; at least 1."""
    power = 1
    while power * 10 <= most:
        power *= 10
    return next(power * step for step in (1, 2, 5, 10) if power * step >= most)


def short(count: int) -> str:
    """Return a number in at most five signs."""
    for unit, word in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.3g}{word}"
    return str(count)
