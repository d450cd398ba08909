"""How long the parts of a flight last, and how long the bench waits: then it says what was missed, and goes on.

All are in seconds. They are about twice what this operator took with 5,000 runs on two cores that carried the API
server too (240 s to create them, 80 s for kubectl alone to delete them), and with 1,000 enough for the baseline where
it keeps up at all. The default flights take about an hour.
"""

from __future__ import annotations

from dataclasses import dataclass

MANY = 1000
"""From more runs than these on, the interval is the longer one, and they finish at the lower rate."""
FINISHES, MANY_FINISHES = 25.0, 12.5
"""Runs that finish in a second, at most."""
INTERVALS = 3
"""How long runs are held, in polling intervals."""
LIVES = 300
RATE = 5.0
"""Lives that begin in a second: the baseline must be able to carry them."""
_GRACE = 60.0
"""For the short pauses of a phase, and for reading the meters of an API server that is busy."""


def spread(count: int, interval: float, rate: float | None = None) -> float:
    """Over how long N runs finish: at a rate that the machine carries.

    Each end costs the API server and etcd some 44 ms of CPU, so that 25 in a second take more than one core of two. The
    500 polls in a second of 5,000 runs take most of the other, in the operator and in the stand-in: the delays would be
    the machine's. So with more than `MANY` runs half as many finish in a second, 5,000 within 400 s.
    """
    return max(2 * interval, count / (rate or (FINISHES if count <= MANY else MANY_FINISHES)))


@dataclass(frozen=True)
class Limits:
    """Those of a flight with `count` runs, which finish within `over` seconds."""

    count: int
    interval: float
    over: float

    def _grows(self, base: float, each: float) -> float:
        return base + each * self.count

    @property
    def first(self) -> float:
        """A few runs, to show their run; to finish; to go. After a restart all others are listed first."""
        return self._grows(40, 0.02)

    @property
    def crowd(self) -> float:
        """N runs, from the first POST until all show their run."""
        return self._grows(60, 0.1)

    @property
    def quiet(self) -> float:
        """What comes late, Events above all: this operator posts 20 in a second, of two for each run."""
        return self._grows(60, 0.06)

    @property
    def finished(self) -> float:
        """N runs, until the status of each says that it has finished."""
        return self.over + self._grows(45 + 3 * self.interval, 0.03)

    @property
    def polls(self) -> float:
        """N runs, until each is polled after a restart."""
        return self._grows(45, 0.03)

    @property
    def finished_gone(self) -> float:
        """N finished runs, from the start of kubectl until all have gone; that is no figure that is compared."""
        return self._grows(20, 0.06)

    @property
    def gone(self) -> float:
        """N running ones: until all are cancelled and have gone. More than the verdict grants."""
        return self._grows(130, 0.07)

    @property
    def lives(self) -> float:
        """Short runs, from the start of the last one until all have gone."""
        return 60

    @property
    def swept(self) -> float:
        """What is left over, removed by the bench itself."""
        return self._grows(20, 0.03)

    def of_phase(self, name: str) -> float:
        """After so long a phase is broken off, whatever it does: more than all that it waits for."""
        waits = {
            "start": 3 * self.first,
            "create": self.crowd,
            "hold": (1 + INTERVALS) * self.interval + self.quiet,
            "finish": self.finished,
            "restart": 6 * self.first + self.crowd + self.polls,
            "delete": self.finished_gone + self.swept + self.gone,
            "lives": self.swept + 2 * self.quiet + LIVES / RATE + self.lives,
            "again": self.crowd + self.gone,
        }
        return waits[name] + _GRACE
