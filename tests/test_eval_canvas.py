"""Numbers as the pictures write them."""

from __future__ import annotations

import pytest

from eval.canvas import percent, signed


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (1.0, "100.0\xa0%"), (0.9999, "99.9\xa0%"), (0.0, "0.0\xa0%"), (0.125, "12.5\xa0%")],
)
def test_percent(value: float | None, text: str) -> None:
    assert percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.0 points"), (-0.04, "0.0 points"), (-2.0, "−2.0 points"), (1.25, "+1.2 points")]
)
def test_signed(value: float, text: str) -> None:
    assert signed(value, 1, "points") == text
