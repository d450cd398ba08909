"""The rate of requests of a namespace to an address with a key: each has a place in a line that moves at the rate.

A run takes a place, comes back when it is due, asks again, and then sends:

    entry.place = bucket.take() if entry.place is None else entry.place
    if wait := bucket.due(entry.place):
        return wait
    entry.place = None
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final

LINE: Final = 600.0
"""Seconds that a line may last. Behind that no place is given: rates and runs change long before."""
_UNUSED: Final = 600.0
"""Seconds after which a bucket, or what a provider said of it, is dropped when nobody asked for it."""
_SHARE: Final = 0.8
"""What looks may take of the rate: the rest is for creates and for what is urgent."""
_EXACT: Final = 1e-6
"""Requests by which sums of times may be wrong."""


class Bucket:
    """How many requests a minute may be sent, and how many of them at once: `per_minute` > 0, `burst` ≥ 1.

    The generic cell rate algorithm, counted in requests instead of in seconds: so all who stand in line are due
    later while the server asks for patience, and sooner or later when the rate is changed. `clock` gives
    seconds that never go back.
    """

    def __init__(self, per_minute: float, burst: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rate = per_minute / 60
        self._burst = burst
        self._at = clock()
        """When `_served` was counted; nothing is before `_patience`."""
        self._patience = -math.inf
        self._served = 0.0
        """How many requests the rate has allowed until now; places up to this one are due."""
        self._next = -math.inf
        """The place of the next who comes; how far it lies behind `_served` is what may be sent at once."""

    def change(self, per_minute: float, burst: int) -> None:
        """Go on with other limits; who stands in line is due by the new rate, but asks when he was told to."""
        self._count()
        self._rate = per_minute / 60
        self._burst = burst

    def take(self) -> float | None:
        """The next place in line, for `due`; used up whether it is used or not. None: the line is full."""
        self._count()
        place = max(self._next, self._served)
        if place - self._served > LINE * self._rate:
            return None
        self._next += 1
        return place

    def due(self, place: float | None) -> float:
        """Seconds after which to ask again, at most `LINE`; 0.0: send now. Without a place, to take one then.

        Who comes late sends beside those whose turn it is. A place is of one bucket: one that is taken to another,
        because the key was changed, is due there by the end of its line at the latest.
        """
        self._count()
        if place is None:
            return LINE
        ahead = place - self._served if place < self._next else 0.0
        return min(self.held() + (ahead / self._rate if ahead > _EXACT else 0.0), LINE)

    def spend(self) -> None:
        """A request is sent out of turn: all others are due later, but the line gets no longer than `LINE`."""
        self._count()
        self._served = max(self._served - 1, min(self._served, self._next - LINE * self._rate))

    def hold(self, seconds: float) -> None:
        """The server asked for patience: nothing is due before, and then one by one. The longest such wins."""
        self._count()
        self._next = max(self._next, self._served)
        self._patience = max(self._patience, self._at + seconds)

    def held(self) -> float:
        """Seconds for which the server still asks for patience, also of those who `spend`."""
        return max(self._patience - self._clock(), 0.0)

    def interval(self, runs: int) -> float:
        """The least seconds between two looks at each of so many runs that leave a fifth of the rate to others."""
        return runs / (_SHARE * self._rate)

    def idle(self) -> bool:
        """Whether a new bucket would do the same."""
        self._count()
        return self._next <= self._served - self._burst + 1 + _EXACT and not self.held()

    def _count(self) -> None:
        """Count what was allowed since the last time. None of it can be saved beyond the burst."""
        now = self._clock()
        self._served += max(now - max(self._at, self._patience), 0.0) * self._rate
        self._at = now
        self._next = max(self._next, self._served - self._burst + 1)


@dataclass(slots=True)
class _Used:
    """A bucket, and by provider: when it asked last, and its limits."""

    bucket: Bucket
    limits: tuple[float, int]
    asked: dict[str, tuple[float, tuple[float, int]]] = field(default_factory=dict)


class Buckets:
    """The buckets by whose they are. They are asked for at each use: an idle one is dropped after a while."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._used: dict[Hashable, _Used] = {}
        self._pruned = clock()

    def __len__(self) -> int:
        return len(self._used)

    def get(self, whose: Hashable, provider: str, per_minute: float, burst: int) -> Bucket:
        """The bucket that all share who are the same `whose`.

        The limits are what `provider` says now. Of several providers that share one, the smallest rate counts,
        until its provider has not asked for ten to twenty minutes.
        """
        now = self._clock()
        self._prune(now)
        limits = per_minute, burst
        used = self._used.get(whose)
        if used is None:
            used = self._used[whose] = _Used(Bucket(per_minute, burst, self._clock), limits)
        used.asked[provider] = now, limits
        least = min(said for _, said in used.asked.values())
        if used.limits != least:
            used.limits = least
            used.bucket.change(*least)
        return used.bucket

    def _prune(self, now: float) -> None:
        """Once in a while, drop what nobody has asked for."""
        if now - self._pruned < _UNUSED:
            return
        self._pruned = now
        for whose, used in list(self._used.items()):
            used.asked = {provider: said for provider, said in used.asked.items() if now - said[0] < _UNUSED}
            if not used.asked and used.bucket.idle():
                del self._used[whose]
