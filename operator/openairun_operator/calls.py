"""How many calls go at once: servers that hang must not keep the workers from all others. In memory; all are short.

Those whose calls are counted together are a crew: all providers of a namespace, or the operator's own. Calls that end
runs are counted apart from the others, and those of deletions, which have workers of their own, apart from these.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from openairun_operator.lifecycle.provider import OWN

_CALLS: Final = 16
"""Calls at once of a namespace that end nothing."""
_MOST: Final = 96
"""Calls at once of all namespaces together but for deletions: fewer than there are workers, so that the operator's own
go on."""
_ENDINGS: Final = 32
"""Calls at once of a namespace that end runs."""
_TO_SLOW: Final = 8
"""The same if its servers are slow to answer them."""
_DELETIONS: Final = 64
"""Calls at once for deletions: for those of the operator's own, and for those of all namespaces together. Half of the
workers that there are for what is urgent."""
_SLOW: Final = 3.0
"""Seconds that a call takes at a server that is slow."""


@dataclass(frozen=True, slots=True)
class _Call:
    crew: str
    ending: bool
    deletion: bool
    began: float


@dataclass(frozen=True, slots=True)
class _Wish:
    deletion: bool
    over: bool


class Calls:
    """Who calls, or is about to, by uid; and who waits to end a run, by crew. `clock` gives seconds."""

    def __init__(self, wake: Callable[[str], None], clock: Callable[[], float]) -> None:
        """`wake` is called with a uid that waited to end its run, and may now. It may be too late all the same."""
        self._wake = wake
        self._clock = clock
        self._under_way: dict[str, _Call] = {}
        self._looks: Counter[str] = Counter()
        self._endings: Counter[str] = Counter()
        self._others: Counter[bool] = Counter()
        """Those of all namespaces together, by whether they are for deletions."""
        self._own_deletions = 0
        self._slow: set[str] = set()
        self._lines: dict[str, dict[str, _Wish]] = {}
        """Who waits, in order."""

    def __contains__(self, uid: str) -> bool:
        return uid in self._under_way

    def begins(self, uid: str, crew: str, *, ending: bool, deletion: bool) -> None:
        """A call is under way, instead of the one before."""
        self.ends(uid)
        self._under_way[uid] = _Call(crew, ending, deletion, self._clock())
        self._count(self._under_way[uid], 1)

    def ends(self, uid: str) -> None:
        """It is over, if there was one."""
        call = self._under_way.pop(uid, None)
        if call is None:
            return
        self._count(call, -1)
        if call.ending:
            slow = self._clock() - call.began >= _SLOW
            (self._slow.add if slow else self._slow.discard)(call.crew)
            self._wake_some()

    def is_full(self, crew: str) -> bool:
        """Whether a call that ends nothing must wait."""
        return crew != OWN and (self._looks[crew] >= _CALLS or self._others[False] >= _MOST)

    def is_full_for(self, crew: str, *, deletion: bool, over: bool = False) -> bool:
        """Whether a call that ends a run must wait; `over`: its time to end is over, and no call was made."""
        if crew == OWN:
            return deletion and self._own_deletions >= _DELETIONS
        most = _TO_SLOW if crew in self._slow and not over else _ENDINGS
        return self._endings[crew] >= most or self._others[deletion] >= (_DELETIONS if deletion else _MOST)

    def line_up(self, uid: str, crew: str, *, deletion: bool, over: bool) -> None:
        """Wait to end a run."""
        self._lines.setdefault(crew, {})[uid] = _Wish(deletion, over)

    def step_out(self, uid: str, crew: str) -> None:
        """Wait no longer."""
        if line := self._lines.get(crew):
            line.pop(uid, None)
            if not line:
                del self._lines[crew]

    def forget(self, uid: str) -> None:
        """It calls no more."""
        self.ends(uid)
        for crew in list(self._lines):
            self.step_out(uid, crew)

    def _count(self, call: _Call, by: int) -> None:
        counts = self._endings if call.ending else self._looks
        counts[call.crew] += by
        if not counts[call.crew]:
            del counts[call.crew]
        if call.crew != OWN:
            self._others[call.ending and call.deletion] += by
        elif call.ending and call.deletion:
            self._own_deletions += by

    def _wake_some(self) -> None:
        """One of each crew that may call: who does not after all leaves its turn to the next one, and is the last."""
        for crew, line in self._lines.items():
            uid, wish = next(iter(line.items()))
            if not self.is_full_for(crew, deletion=wish.deletion, over=wish.over):
                line[uid] = line.pop(uid)
                self._wake(uid)
