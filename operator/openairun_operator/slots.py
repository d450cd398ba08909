"""Who may start a run on a provider: in memory, without a clock. Each call takes O(log n), on average over many."""

import heapq
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

_Rank = tuple[int, str, str]

_STALE: Final = 16
"""Stale entries that a queue may keep beside as many as it has live ones."""


class _State(Enum):
    WAITS = "waits"
    GRANTED = "granted"
    HOLDS = "holds"


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a uid has or wants; `created` is empty where it no longer matters."""

    provider: str
    namespace: str
    created: str
    state: _State


class _Queue:
    """Names by rank, the least first: a heap, and what in it still counts."""

    def __init__(self) -> None:
        self._ranks: dict[str, _Rank] = {}
        self._heap: list[tuple[_Rank, str]] = []

    def __bool__(self) -> bool:
        return bool(self._ranks)

    def put(self, name: str, rank: _Rank) -> None:
        """Add `name`, or move it."""
        if self._ranks.get(name) != rank:
            self._ranks[name] = rank
            heapq.heappush(self._heap, (rank, name))
            self._tidy()

    def drop(self, name: str) -> None:
        """Remove `name`, if it is there."""
        self._ranks.pop(name, None)
        self._tidy()

    def first(self) -> tuple[_Rank, str]:
        """The least rank and its name; the queue must not be empty."""
        while self._ranks.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0]

    def _tidy(self) -> None:
        """Build the heap anew when most of it is stale: what is never first would stay in it for ever."""
        if len(self._heap) > 2 * len(self._ranks) + _STALE:
            self._heap = [(rank, name) for name, rank in self._ranks.items()]
            heapq.heapify(self._heap)


class _Pool:
    """One provider: who has a slot or a grant, and who waits for one."""

    def __init__(self) -> None:
        self.sizes: Counter[_State] = Counter()
        self._taken: Counter[str] = Counter()
        """Slots and grants by namespace."""
        self._waiting: dict[str, _Queue] = {}
        """Those without a grant, by namespace."""
        self._namespaces = _Queue()
        """The namespaces that have such, by what they have taken and by their oldest."""

    def add(self, uid: str, claim: _Claim) -> None:
        self.sizes[claim.state] += 1
        if claim.state is _State.WAITS:
            self._waiting.setdefault(claim.namespace, _Queue()).put(uid, (0, claim.created, uid))
        else:
            self._taken[claim.namespace] += 1
        self._rank(claim.namespace)

    def remove(self, uid: str, claim: _Claim) -> None:
        self.sizes[claim.state] -= 1
        if claim.state is _State.WAITS:
            self._waiting[claim.namespace].drop(uid)
        else:
            self._taken[claim.namespace] -= 1
            if not self._taken[claim.namespace]:
                del self._taken[claim.namespace]
        self._rank(claim.namespace)

    def next(self) -> str:
        """The uid whose turn it is; somebody must wait."""
        _, namespace = self._namespaces.first()
        return self._waiting[namespace].first()[1]

    def _rank(self, namespace: str) -> None:
        """Put the namespace where it belongs now."""
        waiting = self._waiting.get(namespace)
        if waiting:
            (_, created, uid), _ = waiting.first()
            self._namespaces.put(namespace, (self._taken[namespace], created, uid))
        else:
            self._waiting.pop(namespace, None)
            self._namespaces.drop(namespace)


class Slots:
    """Who may start a run: at most so many at once on a provider, in order of creation, fair between namespaces.

    While there are fewer slots and grants than the limit, the next that waits gets a grant and is woken. It is
    of the namespace with the fewest slots and grants; of equal ones, of that whose oldest waiting run is
    oldest; in a namespace, the oldest. A grant becomes a slot when its run goes. An older run that comes to
    wait after the grant was given is only the next: moving grants is not worth its complications.
    """

    def __init__(self, wake: Callable[[str], None]) -> None:
        """`wake` is called with each uid that gets a grant, also from within its own call of `waits`."""
        self._wake = wake
        self._open = False
        self._limits: dict[str, int] = {}
        self._claims: dict[str, _Claim] = {}
        self._pools: dict[str, _Pool] = {}

    def close(self) -> bool:
        """Give no grants for the moment; the answer is whether some were given before."""
        opened, self._open = self._open, False
        return opened

    def open(self) -> None:
        """Give grants: all runs that go are known now, and count."""
        self._open = True
        for provider in list(self._pools):
            self._grant(provider)

    def limit(self, provider: str, most: int | None) -> None:
        """At most so many at once; None: no limit.

        A lower limit takes no slot away, but grants that are no slots yet: else runs whose creates fail would
        go on beyond it.
        """
        lower = most is not None and most < self._limits.get(provider, math.inf)
        if most is None:
            self._limits.pop(provider, None)
        else:
            self._limits[provider] = most
        if lower:
            for uid, claim in list(self._claims.items()):
                if claim.provider == provider and claim.state is _State.GRANTED:
                    self._put(uid, replace(claim, state=_State.WAITS))
        self._grant(provider)

    def holds(self, uid: str, provider: str, namespace: str) -> None:
        """Its run goes, or may go: it has a slot, over the limit too."""
        self._move(uid, _Claim(provider, namespace, "", _State.HOLDS))

    def waits(self, uid: str, provider: str, namespace: str, created: str) -> None:
        """It wants a run, and has none; `created` is its creationTimestamp.

        A grant that it has on this provider stays; a slot is given back. Who is not going to start soon should
        leave: a grant that is not used keeps others waiting.
        """
        claim = _Claim(provider, namespace, created, _State.WAITS)
        if self._claims.get(uid) != replace(claim, state=_State.GRANTED):
            self._move(uid, claim)

    def leaves(self, uid: str) -> None:
        """It neither has a run nor wants one, or has gone."""
        self._move(uid, None)

    def admitted(self, uid: str, provider: str) -> bool:
        """Whether it may start a run on this provider: it has a grant or a slot there."""
        claim = self._claims.get(uid)
        return claim is not None and claim.provider == provider and claim.state is not _State.WAITS

    def counts(self, provider: str) -> tuple[int, int]:
        """How many hold a slot, and how many wait, with a grant or without."""
        pool = self._pools.get(provider)
        if pool is None:
            return 0, 0
        return pool.sizes[_State.HOLDS], pool.sizes[_State.WAITS] + pool.sizes[_State.GRANTED]

    def _move(self, uid: str, claim: _Claim | None) -> None:
        """Replace its claim, and let others have what it gave back."""
        old = self._claims.get(uid)
        if claim != old:
            self._put(uid, claim)
            for changed in filter(None, (old, claim)):
                self._grant(changed.provider)

    def _put(self, uid: str, claim: _Claim | None) -> None:
        """Replace its claim; what is empty then vanishes."""
        if old := self._claims.pop(uid, None):
            pool = self._pools[old.provider]
            pool.remove(uid, old)
            if not pool.sizes.total():
                del self._pools[old.provider]
        if claim:
            self._claims[uid] = claim
            self._pools.setdefault(claim.provider, _Pool()).add(uid, claim)

    def _grant(self, provider: str) -> None:
        """Give grants while there is room and somebody waits."""
        limit = self._limits.get(provider, math.inf)
        while self._open and (pool := self._pools.get(provider)) and pool.sizes[_State.WAITS]:
            if pool.sizes[_State.HOLDS] + pool.sizes[_State.GRANTED] >= limit:
                return
            uid = pool.next()
            self._put(uid, replace(self._claims[uid], state=_State.GRANTED))
            self._wake(uid)
