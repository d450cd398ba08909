"""Who may ask a provider, and when: how many of its runs go at once, its rate of requests, and its calls at once."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from openairun_operator.buckets import Bucket
from openairun_operator.calls import Calls, Purpose
from openairun_operator.lifecycle import adopting
from openairun_operator.lifecycle.actions import Action, Adopt, Cancel, Claim, Create, Decision, Find, Observe, Submit
from openairun_operator.lifecycle.facts import Facts
from openairun_operator.lifecycle.provider import OWN, Provider, lane
from openairun_operator.lifecycle.queueing import goes, waits
from openairun_operator.lifecycle.run import Run
from openairun_operator.protocols import Providers
from openairun_operator.slots import Slots
from openairun_operator.store import Entry

_AGAIN: Final = 5.0
"""Seconds until a run that is being ended is decided upon again: the orphan limit may come first."""
_IN_LINE: Final = 30.0
"""The same of one that waits for its turn to call, and is woken then."""
_FULL: Final = 1.0
_RETURNS: Final = 50.0
"""How many come back in a second: more than calls end, if each takes long and there are 80."""


def crew(namespace: str, provider: str) -> str:
    """Those whose calls are counted together: all of a namespace, however many providers it has."""
    return OWN if provider == OWN else namespace


def _goes(run: Run, facts: Facts) -> bool:
    """Whether a run goes of which the operator wrote the record: an annotation, which every user may write, takes no
    room by itself.
    """
    record, shown = run.record, run.status.record
    if record is None or not goes(run, facts.now):
        return False
    if facts.known.ledger.get(record.token) is None and not (shown and shown.token == record.token):
        return False
    return adopting.confirmed(run, record, facts)


class Admission:
    """Slots, rates and calls of all providers. `wake` is called with a uid that waited for room and has some now.

    `clock` gives seconds.
    """

    def __init__(self, providers: Providers, wake: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._providers = providers
        self._slots = Slots(wake)
        self._calls = Calls(wake, clock)
        self._own = Bucket(60 * _RETURNS, 1, clock)
        """Those who come back to see whether the operator's own server has room: they may be thousands."""
        self.open = self._slots.open

    def note(self, run: Run, decision: Decision, facts: Facts) -> None:
        """Note whether the run takes room on its provider, or waits for some."""
        if not isinstance(decision.action, Create | Submit):
            self._calls.ends(run.uid)  # what was claimed is not sent
        if not decision.ending:
            self._calls.step_out(run.uid)
        if self.surely_goes(run, facts, elsewhere=not waits(decision)):
            return
        if waits(decision):
            its = lane(run.namespace, facts.wanted.name)
            self._slots.limit(its, facts.wanted.most_runs)
            self._slots.waits(run.uid, its, run.namespace, run.created)
        else:
            self._slots.leaves(run.uid)

    def surely_goes(self, run: Run, facts: Facts, *, elsewhere: bool = False) -> bool:
        """Whether the run takes room whatever is decided; it is noted then. To decide takes most of a start.

        `elsewhere`: on another provider than the next run's too.
        """
        if not run.record or (run.record.provider != facts.wanted.name and not elsewhere) or not _goes(run, facts):
            return False
        self._slots.holds(run.uid, lane(run.namespace, run.record.provider), run.namespace)
        return True

    def leaves(self, uid: str) -> None:
        """It needs nothing more."""
        self._slots.leaves(uid)
        self._calls.forget(uid)

    def admitted(self, run: Run, provider: Provider) -> bool:
        """Whether another run may go on the provider."""
        return provider.most_runs is None or self._slots.admitted(run.uid, lane(run.namespace, provider.name))

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Note many before any of them is given room, so that it is given in order."""
        opened = self._slots.close()
        try:
            yield
        finally:
            if opened:
                self._slots.open()

    def counts(self, namespace: str, provider: str) -> tuple[int, int]:
        """How many runs go on a provider, and how many wait for room there."""
        return self._slots.counts(lane(namespace, provider))

    def in_flight(self, namespace: str, provider: str) -> int:
        """How many runs go on a provider."""
        return self.counts(namespace, provider)[0]

    def pause(self, entry: Entry, action: Action, facts: Facts) -> float:
        """Seconds until the provider may be asked for this. A place in its line is taken once, and kept until then."""
        match action:
            case Adopt():
                name = facts.wanted.name
            case Claim(record) | Observe(record) | Find(record) | Cancel(record):  # what is claimed is sent at once
                name = record.provider
            case _:
                return 0.0
        if not entry.ending:
            return self.in_line(entry, name)
        # It saves money, and its time is short.
        its, bucket = crew(entry.namespace, name), self._providers.bucket(entry.namespace, name)
        limit = entry.known.ending_until(facts.now, facts.policy)
        over = facts.now >= limit
        if bucket and not over and (held := bucket.held()):  # then once in any case
            return min(held, _AGAIN)
        purpose = Purpose.of(ending=True, deletion=entry.vanished or entry.deleted)
        if self._calls.is_full(its, purpose, over=over):
            self._calls.line_up(entry.uid, its, purpose, over=over)
            return _IN_LINE if over else min(_IN_LINE, (limit - facts.now).total_seconds())
        self._calls.step_out(entry.uid)
        if bucket:
            bucket.spend()
        return 0.0

    def in_line(self, entry: Entry, name: str) -> float:
        """Seconds until the provider may be asked for what saves no money."""
        if self._calls.is_full(its := crew(entry.namespace, name), Purpose.LOOK):
            return min(max(self._own.due(self._own.take()), _FULL), _IN_LINE) if its == OWN else _FULL
        bucket = self._providers.bucket(entry.namespace, name)
        if bucket is None:
            return 0.0
        if entry.place is None:
            entry.place = bucket.take()
        if wait := bucket.due(entry.place):
            return wait
        entry.place = None
        return 0.0

    @contextlib.contextmanager
    def calling(self, run: Run, action: Action, facts: Facts, *, ending: bool) -> Iterator[None]:
        """While the action is done; `ending` a run, or not."""
        match action:
            case Adopt():
                its = crew(run.namespace, facts.wanted.name)
            case Claim(record) | Create(record) | Submit(record) | Observe(record) | Find(record) | Cancel(record):
                its = crew(run.namespace, record.provider)
            case _:
                yield
                return
        asks = isinstance(action, Adopt | Observe | Find | Cancel)  # the others write to the API server, too
        self._calls.begins(run.uid, its, Purpose.of(ending=ending, deletion=run.deleted_at is not None), tells=asks)
        claimed = False
        try:
            yield
            claimed = isinstance(action, Claim)
        finally:
            if not claimed:
                self._calls.ends(run.uid)

    @contextlib.contextmanager
    def asking(self, entry: Entry, name: str) -> Iterator[None]:
        """While the provider is asked for what nothing was decided about."""
        self._calls.begins(entry.uid, crew(entry.namespace, name), Purpose.LOOK)
        try:
            yield
        finally:
            self._calls.ends(entry.uid)

    def is_calling(self, uid: str) -> bool:
        """Whether a call for the resource is under way: it has a time-out of its own."""
        return uid in self._calls
