"""How many calls go at once: servers that hang must not keep the workers from all others. In memory; all are short.

Those whose calls are counted together are a crew: all providers of a namespace, or the operator's own. Calls that end
runs are counted apart from the others, and those of deletions, which have workers of their own, apart from these.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from openairun_operator.lifecycle.provider import OWN

_TO_SLOW: Final = 8
"""Calls at once of a namespace that end runs, if its servers are slow to answer them."""
_SLOW: Final = 3.0
"""Seconds that a call takes at a server that is slow."""


class Purpose(Enum):
    """What a call is for: how many there may be at once, of one namespace and of all together.

    The first two are fewer than there are workers, so that the operator's own go on. Of the workers for what is urgent,
    half are for deletions of the operator's own.
    """

    LOOK = 16, 72
    """To end nothing."""
    CANCEL = 16, 24
    """To end a run whose resource stays."""
    DELETION = 32, 64

    @staticmethod
    def of(*, ending: bool, deletion: bool) -> "Purpose":
        """That of a call that ends a run, or does not, for a resource that is being deleted, or is not."""
        return (Purpose.DELETION if deletion else Purpose.CANCEL) if ending else Purpose.LOOK


@dataclass(frozen=True, slots=True)
class _Call:
    crew: str
    purpose: Purpose
    began: float = 0.0


class _Line(NamedTuple):
    crew: str
    purpose: Purpose
    over: bool


class Calls:
    """Who calls, or is about to, by uid; and who waits to end a run. `clock` gives seconds."""

    def __init__(self, wake: Callable[[str], None], clock: Callable[[], float]) -> None:
        """`wake` is called with a uid that waited to end its run, and may now. It may be too late all the same."""
        self._wake = wake
        self._clock = clock
        self._under_way: dict[str, _Call] = {}
        self._counts: Counter[tuple[str, Purpose]] = Counter()
        self._others: Counter[Purpose] = Counter()
        """Those of all namespaces together."""
        self._slow: set[str] = set()
        self._lines: dict[_Line, dict[str, None]] = {}
        """Who waits, in order: the line whose turn is next is the first."""
        self._waiting: dict[str, _Line] = {}

    def __contains__(self, uid: str) -> bool:
        return uid in self._under_way

    def begins(self, uid: str, crew: str, purpose: Purpose) -> None:
        """A call is under way, instead of the one before."""
        self.ends(uid)
        self._under_way[uid] = _Call(crew, purpose, self._clock())
        self._count(self._under_way[uid], 1)

    def ends(self, uid: str) -> None:
        """It is over, if there was one."""
        call = self._under_way.pop(uid, None)
        if call is None:
            return
        self._count(call, -1)
        if call.purpose is not Purpose.LOOK:
            slow = self._clock() - call.began >= _SLOW
            (self._slow.add if slow else self._slow.discard)(call.crew)
            self._wake_some()

    def is_full(self, crew: str, purpose: Purpose, *, over: bool = False) -> bool:
        """Whether such a call must wait; `over`: the time to end the run is over, and it is the last try."""
        most, of_all = purpose.value
        if crew == OWN:
            return purpose is Purpose.DELETION and self._counts[crew, purpose] >= of_all
        if purpose is not Purpose.LOOK and crew in self._slow and not over:
            most = _TO_SLOW
        return self._counts[crew, purpose] >= most or self._others[purpose] >= of_all

    def line_up(self, uid: str, crew: str, purpose: Purpose, *, over: bool) -> None:
        """Wait to end a run."""
        line = _Line(crew, purpose, over)
        if self._waiting.get(uid) != line:
            self.step_out(uid)
            self._waiting[uid] = line
            self._lines.setdefault(line, {})[uid] = None

    def step_out(self, uid: str) -> None:
        """Wait no longer."""
        if line := self._waiting.pop(uid, None):
            del self._lines[line][uid]
            if not self._lines[line]:
                del self._lines[line]

    def forget(self, uid: str) -> None:
        """It calls no more."""
        self.ends(uid)
        self.step_out(uid)

    def _count(self, call: _Call, by: int) -> None:
        self._counts[call.crew, call.purpose] += by
        if not self._counts[call.crew, call.purpose]:
            del self._counts[call.crew, call.purpose]
        if call.crew != OWN:
            self._others[call.purpose] += by

    def _wake_some(self) -> None:
        """Two, of different lines if there are, so that room that was left is used. They go to the end of theirs."""
        woken = 0
        for line in list(self._lines):
            if self.is_full(line.crew, line.purpose, over=line.over):
                continue
            waiting = self._lines.pop(line)
            uid = next(iter(waiting))
            waiting[uid] = waiting.pop(uid)
            self._lines[line] = waiting
            self._wake(uid)
            woken += 1
            if woken == 2:
                return
