"""The algebra against sets of points, on spaces small enough to list."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tidegate_compiler.verify.space import EVER, Claim, Place, Right, Span, excess

SPANS = st.tuples(st.integers(0, 5), st.integers(0, 5)).map(lambda t: Span(*t))  # empty ones too
TIMES = (
    SPANS
    | st.builds(Span, st.just(EVER.low), st.integers(0, 5))
    | st.builds(Span, st.integers(0, 5), st.just(EVER.high))
)
CLAIMS = st.lists(
    st.builds(
        Claim,
        SPANS.filter(lambda s: s.low < s.high),
        st.builds(Right, st.booleans(), st.lists(SPANS, max_size=2).map(tuple), TIMES),
    ),
    max_size=5,
)
POINTS = [Place(*point) for point in itertools.product(range(6), range(6), range(-1, 7))]


def allowed(claims: list[Claim], point: Place) -> bool:
    matching = [
        right.deny
        for destination, right in claims
        if destination.holds(point.destination)
        and any(span.holds(point.service) for span in right.services)
        and right.window.holds(point.time)
    ]
    return bool(matching) and not any(matching)


@given(CLAIMS, CLAIMS)
def test_excess_is_found_exactly_where_there_is_some(one: list[Claim], other: list[Claim]) -> None:
    for mine, theirs, found in zip((one, other), (other, one), excess(one, other), strict=True):
        points = [point for point in POINTS if allowed(mine, point) and not allowed(theirs, point)]
        assert (found is not None) == bool(points)
        if found is not None:
            assert allowed(mine, found)
            assert not allowed(theirs, found)
