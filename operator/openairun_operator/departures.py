"""When a deleted resource is let go: at once, but of a crowd only after those that are still to be cancelled.

To remove a finalizer takes the API server as long as the deletion itself. Where hundreds are deleted, each removal
delays the deletion of others, whose runs cost money until then.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_CROWD: Final = 40
_AT_ONCE: Final = 2.0
"""Seconds within which so many deletions make a crowd."""
_LONGEST: Final = 120.0
"""Seconds for which one is held back, however long the crowd comes."""


@dataclass(slots=True)
class _Held:
    namespace: str
    since: float
    free: bool = False


class Departures:
    """Who waits to be let go: a crowd holds nobody back in another namespace. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._deletions: dict[str, deque[float]] = {}
        """The last ones, by namespace."""
        self._held: dict[str, _Held] = {}
        """By uid, the first one first."""

    def deleted(self, namespace: str) -> None:
        """A resource is deleted."""
        self._deletions.setdefault(namespace, deque(maxlen=_CROWD)).append(self._clock())

    def held(self, uid: str, namespace: str) -> bool:
        """Whether it is to wait until `due` names it. Who was once let go is never held again."""
        now = self._clock()
        if uid not in self._held and self._crowded(namespace, now):
            self._held[uid] = _Held(namespace, now)
        return self.waits(uid)

    def waits(self, uid: str) -> bool:
        """Whether it is held back."""
        return uid in self._held and not self._held[uid].free

    def gone(self, uid: str) -> None:
        """It has gone, or something else is to be done with it first."""
        self._held.pop(uid, None)

    def all_free(self) -> list[str]:
        """Whoever is held back, and may be let go now: nobody will be there to do it later."""
        held = [uid for uid, held in self._held.items() if not held.free]
        for uid in held:
            self._held[uid].free = True
        return held

    def due(self) -> list[str]:
        """Who may be let go now, and was not named before. What is known of crowds that are over is forgotten."""
        now = self._clock()
        for namespace in [each for each, times in self._deletions.items() if times[-1] + _AT_ONCE < now]:
            del self._deletions[namespace]
        crowded = {namespace for namespace in self._deletions if self._crowded(namespace, now)}
        due = []
        for uid, held in self._held.items():
            if not held.free and (held.namespace not in crowded or now >= held.since + _LONGEST):
                held.free = True
                due.append(uid)
        return due

    def _crowded(self, namespace: str, now: float) -> bool:
        times = self._deletions.get(namespace)
        return times is not None and len(times) == _CROWD and now - times[0] < _AT_ONCE
