"""The time chart: XML, within its frame, and everything that it shows is told in words."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_control.ui import words
from tidegate_control.ui.drawing import HEIGHT, WIDTH, Bar, chart, nice, short

BARS = st.lists(
    st.builds(Bar, st.integers(0, 4_000_000_000), st.integers(0, 10**12), st.integers(0, 10**12)), max_size=60
)


@given(BARS, st.text(max_size=20))
def test_a_chart_is_xml_within_its_frame(bars: list[Bar], title: str) -> None:
    text = chart(bars, "".join(char for char in title if char.isprintable()))
    root = ElementTree.fromstring(text)
    for box in root.iter("rect"):
        x, y, wide, high = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + wide <= WIDTH + 1
        assert y + high <= HEIGHT
        assert high >= 0
    assert len(list(root.iter("title"))) == len(bars)
    assert "style=" not in text
    assert "<script" not in text


@given(st.integers(0, 10**15))
def test_the_axis_ends_at_a_round_number_that_nothing_exceeds(most: int) -> None:
    top = nice(most)
    assert max(1, most) <= top <= max(1, most) * 5 + 1
    assert str(top).strip("0") in ("1", "2", "5")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (999, "999"), (1200, "1.2k"), (5 * 10**6, "5M"), (10**10, "10G")]
)
def test_numbers_on_the_axis_are_short(count: int, text: str) -> None:
    assert short(count) == text


def test_values_are_written_for_people() -> None:
    assert words.size(0) == "0 B"
    assert words.size(1536) == "1.5 KiB"
    assert words.number(1234567) == "1\u202f234\u202f567"
    assert words.when(None) == "never"
    assert words.when(0) == "1970-01-01T00:00:00Z"
    assert words.segment("a/b?c") == "a%2Fb%3Fc"
    assert words.visible("a\u202eb\x1b") == "a\\u202eb\\x1b"
