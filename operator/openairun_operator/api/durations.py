"""Durations as Kubernetes users write them: whole numbers of h, m and s, such as `90s`, `10m`, `1h30m`."""

import re
from datetime import timedelta
from functools import lru_cache

PATTERN = "^([0-9]+(s|m|h))+$"
_UNITS = {"h": 3600, "m": 60, "s": 1}


@lru_cache(maxsize=256)
def parse(text: str) -> timedelta:
    """The duration that `text` says.

    Raises ValueError for anything but whole hours, minutes and seconds; the CRD refuses it before.
    """
    if not re.fullmatch(PATTERN[1:-1], text):
        raise ValueError(f"{text!r} is no duration: write 30s, 10m or 1h30m")
    try:
        return timedelta(seconds=sum(int(n) * _UNITS[u] for n, u in re.findall(r"([0-9]+)([smh])", text)))
    except OverflowError:
        raise ValueError(f"{text!r} is too long a duration") from None


def show(duration: timedelta) -> str:
    """The duration in the largest whole units: 90 seconds are `1m30s`."""
    rest = int(duration.total_seconds())
    text = ""
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"
