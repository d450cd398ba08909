"""Durations as users write them."""

from datetime import timedelta

import pytest

from openairun_operator.api import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h0m1s", 3601), ("168h", 604_800), ("1m1h", 3660)],
)
def test_what_is_written_is_what_is_meant(text: str, seconds: int) -> None:
    assert durations.parse(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("seconds", [0, 1, 59, 60, 61, 3599, 3600, 3661, 86_400, 604_800])
def test_what_is_shown_is_read_again(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert durations.parse(durations.show(duration)) == duration


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (90, "1m30s"), (600, "10m"), (3600, "1h"), (90_000, "25h")])
def test_it_is_shown_in_the_largest_whole_units(seconds: int, text: str) -> None:
    assert durations.show(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "s",
        "10 m",
        "10m ",
        "10m\n",
        "-5s",
        "1.5h",
        "10ms",
        "1d",
        "10M",
        "ten minutes",
        "PT10M",
        "9" * 20 + "h",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        durations.parse(text)
