"""How many calls go at once: servers that hang must not keep the workers from all others. In memory; all are short.

Those whose calls are counted together are a crew: all providers of a namespace, or the operator's own. Calls that end
runs are counted apart from the others, and those of deletions, which have workers of their own, apart from these.
"""

import math
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple

from openairun_operator.lifecycle.provider import OWN

_SLOW: Final = 3.0
"""Seconds that a call takes at a server that is slow."""
_LONG_AGO: Final = 60.0
"""Seconds after which a slow answer says nothing more of a server."""
_OF_SLOW: Final = 0.75
"""The part of all calls for a purpose that is for slow servers, of all namespaces together."""


class Purpose(Enum):
    """What a call is for: how many there may be at once, of one namespace, of all together, and of the operator's own.

    The first two are fewer than there are workers, so that the operator's own go on; those are bounded while they are
    slow. Of the workers for what is urgent, half are for deletions of the operator's own.
    """

    LOOK = 16, 72, 80
    """To end nothing."""
    CANCEL = 16, 24, 24
    """To end a run whose resource stays."""
    DELETION = 32, 64, 64

    @staticmethod
    def of(*, ending: bool, deletion: bool) -> "Purpose":
        """That of a call that ends a run, or does not, for a resource that is being deleted, or is not."""
        return (Purpose.DELETION if deletion else Purpose.CANCEL) if ending else Purpose.LOOK


class _Kind(NamedTuple):
    crew: str
    purpose: Purpose


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
        self._under_way: dict[str, _Kind] = {}
        self._began: dict[_Kind, dict[str, float]] = {}
        """When the calls of a kind did, by uid; infinity for those that tell nothing of the server."""
        self._others: Counter[Purpose] = Counter()
        """Those of all namespaces together."""
        self._slow: dict[_Kind, float] = {}
        """Kinds of which the last answer was slow, and when it came."""
        self._lines: dict[_Line, dict[str, None]] = {}
        """Who waits, in order: the line whose turn is next is the first."""
        self._waiting: dict[str, _Line] = {}

    def __contains__(self, uid: str) -> bool:
        return uid in self._under_way

    def begins(self, uid: str, crew: str, purpose: Purpose, *, tells: bool = True) -> None:
        """A call is under way, instead of the one before. `tells`: how long it takes is the server's doing alone."""
        self.ends(uid)
        kind = self._under_way[uid] = _Kind(crew, purpose)
        self._began.setdefault(kind, {})[uid] = self._clock() if tells else math.inf
        if crew != OWN:
            self._others[purpose] += 1

    def ends(self, uid: str) -> None:
        """It is over, if there was one."""
        kind = self._under_way.pop(uid, None)
        if kind is None:
            return
        began = self._began[kind].pop(uid)
        if not self._began[kind]:
            del self._began[kind]
        if kind.crew != OWN:
            self._others[kind.purpose] -= 1
        if began < math.inf:
            self._judge(kind, self._clock() - began)
        if kind.purpose is not Purpose.LOOK:
            self._wake_some()

    def is_full(self, crew: str, purpose: Purpose, *, over: bool = False) -> bool:
        """Whether such a call must wait; `over`: the time to end the run is over, and it is the last try."""
        most, of_all, own = purpose.value
        kind = _Kind(crew, purpose)
        going = len(self._began.get(kind, ()))
        if crew == OWN:
            return going >= own and (purpose is Purpose.DELETION or self._is_slow(kind))
        if going >= most or self._others[purpose] >= of_all:
            return True
        return not over and self._is_slow(kind) and self._of_slow(purpose) >= of_all * _OF_SLOW

    def _judge(self, kind: _Kind, took: float) -> None:
        now = self._clock()
        self._slow = {each: at for each, at in self._slow.items() if now - at < _LONG_AGO and each != kind}
        if took >= _SLOW:
            self._slow[kind] = now

    def _is_slow(self, kind: _Kind) -> bool:
        """Whether the last answer took long, or one is awaited for long."""
        now = self._clock()
        going = self._began.get(kind, {}).values()
        return now - self._slow.get(kind, -math.inf) < _LONG_AGO or now - min(going, default=math.inf) >= _SLOW

    def _of_slow(self, purpose: Purpose) -> int:
        kinds = [kind for kind in self._began if kind.purpose is purpose and kind.crew != OWN and self._is_slow(kind)]
        return sum(len(self._began[kind]) for kind in kinds)

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
