"""Events are posted beside the work: soon, in order for each resource, and what waits at the end too."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from openairun_operator.kube.cluster import ClusterError, ConflictError, Subject
from openairun_operator.kube.events import Events
from openairun_operator.lifecycle.events import Event
from openairun_operator.lifecycle.run import Run, parse

RUN: Run = parse({"metadata": {"namespace": "team", "name": "x", "uid": "uid"}, "spec": {"input": "x"}})


def run(number: int) -> Run:
    return dataclasses.replace(RUN, name=f"x{number}", uid=f"uid-{number}")


class Posts:
    """An API server that takes events while `open`, and a moment for each."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, str]] = []
        self.moments: list[datetime] = []
        self.at_once = self.most = 0
        self.open = asyncio.Event()
        self.refuse: ClusterError | None = None
        self.tries = 0

    async def post_event(self, subject: Subject, event: Event, at: datetime, instance: str) -> None:
        self.tries += 1
        if self.refuse:
            raise self.refuse
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await self.open.wait()
        await asyncio.sleep(0)
        self.at_once -= 1
        self.taken.append((subject.name, event.message))
        self.moments.append(at)


@pytest.fixture
def posts() -> Posts:
    return Posts()


@pytest.fixture
def events(posts: Posts) -> Events:
    return Events(cast(Any, posts), "me")


def told(message: str) -> Event:
    return Event("Normal", "Created", message)


async def settle() -> None:
    for _ in range(500):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def posting(events: Events) -> Any:
    task = asyncio.create_task(events.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_events_yield_to_runs_that_are_being_ended_when_many_wait(
    events: Events, posts: Posts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An Event costs the API server half of what it costs to end a run, and 20 in a second were a tenth of all."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await _SLEEP(0)

    monkeypatch.setattr("openairun_operator.kube.events.asyncio.sleep", sleep)
    posts.open.set()
    for ended, yields in ((True, 76), (False, 0)):
        events.busy = lambda ended=ended: ended  # type: ignore[misc]
        pauses.clear()
        for number in range(101):
            events.emit(RUN, told(str(number)))
        async with posting(events):
            while len(posts.taken) % 101 or not posts.taken:
                await _SLEEP(0)
        posts.taken.clear()
        assert pauses.count(1.0) == yields


_SLEEP = asyncio.sleep


async def test_several_are_posted_at_once_and_those_of_one_resource_in_order(events: Events, posts: Posts) -> None:
    async with posting(events):
        for message in "abc":
            for number in range(20):
                events.emit(run(number), told(message))
        await settle()
        assert 1 < posts.most <= 4
        posts.open.set()
        await settle()
    assert len(posts.taken) == 60
    for number in range(20):
        assert [message for name, message in posts.taken if name == f"x{number}"] == ["a", "b", "c"]


async def test_more_than_a_burst_are_posted_slowly(events: Events, posts: Posts) -> None:
    """To tell of thousands of ends must not keep the API server from them."""
    loop = asyncio.get_running_loop()
    posts.open.set()
    async with posting(events):
        for number in range(400):
            events.emit(run(number), told("a"))
        began = loop.time()
        await settle()
        assert 190 <= len(posts.taken) <= 210
        while len(posts.taken) < 210:  # noqa: ASYNC110 - a fake has no event to wait for
            await asyncio.sleep(0.01)
        assert loop.time() - began > 0.3
    assert len(posts.taken) == 400


async def test_warnings_are_posted_first_at_the_end(events: Events, posts: Posts) -> None:
    """Time is short then, and they tell of what may still cost money."""
    posts.open.set()
    async with posting(events):
        for number in range(600):
            events.emit(run(1), Event("Warning" if number % 100 == 99 else "Normal", "Orphaned", str(number)))
        await settle()
        before = len(posts.taken)
    assert before < 300
    rest = [int(message) for _, message in posts.taken[before:]]
    late = [number for number in range(before + 1, 600) if number % 100 == 99]
    assert sorted(rest[: len(late) + 1])[-len(late) :] == late
    assert len(posts.taken) == 600


async def test_it_says_when_it_was_and_not_when_it_is_posted(events: Events, posts: Posts) -> None:
    before = datetime.now(UTC)
    events.emit(run(1), told("a"))
    after = datetime.now(UTC)
    posts.open.set()
    async with posting(events):
        await settle()
    (at,) = posts.moments
    assert before <= at <= after


async def test_what_waits_at_the_end_is_posted(events: Events, posts: Posts) -> None:
    async with posting(events):
        await settle()
        posts.open.set()
        for number in range(30):
            events.emit(run(number), told("a"))
    assert len(posts.taken) == 30


async def test_a_server_that_hangs_holds_up_neither_the_work_nor_memory(
    events: Events, posts: Posts, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(15_000):
        events.emit(run(number), told("a"))
    assert "too many events are waiting" in caplog.text
    posts.open.set()
    async with posting(events):
        for _ in range(10):
            await settle()
    assert 5000 <= len(posts.taken) <= 10_000


def error(status: int | None, message: str = "trouble") -> ClusterError:
    return (ConflictError if status == 409 else ClusterError)("post an event", status, message)


@pytest.mark.parametrize(
    ("refusal", "tries"),
    [
        (error(403, "the namespace is being deleted"), 1),
        (error(404, "there is no such namespace"), 1),
        (error(409, 'events "x" already exists'), 1),
        (error(409, "the quota was changed meanwhile"), 4),
        (error(429), 4),
        (error(500, "failed calling webhook"), 4),
    ],
    ids=str,
)
@pytest.mark.usefixtures("quick")
async def test_one_that_is_refused_keeps_no_other_waiting(
    events: Events, posts: Posts, refusal: ClusterError, tries: int
) -> None:
    async with posting(events):
        posts.refuse = refusal
        events.emit(run(1), told("a"))
        await settle()
        assert posts.tries == tries
        posts.refuse = None
        posts.open.set()
        events.emit(run(1), told("b"))
        await settle()
    assert posts.taken == [("x1", "b")]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openairun_operator.kube.events._AGAIN", (0.0, 0.0))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("status", [None, 503])
async def test_while_the_api_server_is_away_events_wait(events: Events, posts: Posts, status: int | None) -> None:
    """What may go at OpenAI for ever was told to nobody."""
    posts.refuse = error(status)
    async with posting(events):
        for message in "abc":
            events.emit(run(1), told(message))
        await settle()
        assert posts.tries > 4
        posts.refuse = None
        posts.open.set()
        await settle()
    assert posts.taken == [("x1", "a"), ("x1", "b"), ("x1", "c")]


@pytest.mark.usefixtures("quick")
async def test_what_cannot_be_posted_for_a_quarter_of_an_hour_is_given_up(
    events: Events, posts: Posts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + ahead

    ahead = timedelta(0)
    monkeypatch.setattr("openairun_operator.kube.events.datetime", Later)
    posts.refuse = error(503, "away")
    async with posting(events):
        events.emit(run(1), told("a"))
        await settle()
        assert caplog.text.count("away; trying again") == caplog.text.count("away") == 1
        ahead = timedelta(minutes=15)
        await settle()
        assert caplog.text.count("away") == 2
        assert posts.tries > 2
        tries = posts.tries
        await settle()
    assert posts.tries == tries


async def test_one_that_waits_for_the_api_server_at_the_end_is_tried_once_more(events: Events, posts: Posts) -> None:
    posts.refuse = error(None)
    posts.open.set()
    async with posting(events):
        events.emit(run(1), told("a"))
        await settle()
        posts.refuse = None
    assert posts.taken == [("x1", "a")]


async def test_what_is_not_posted_at_the_end_is_when_kopf_only_begins_anew(
    events: Events, posts: Posts, caplog: pytest.LogCaptureFixture
) -> None:
    posts.refuse = error(None)
    async with posting(events):
        for message in "abc":
            events.emit(run(1), told(message))
        await settle()
    assert "3 events are not posted yet" in caplog.text
    posts.refuse = None
    posts.open.set()
    async with posting(events):
        await settle()
    assert posts.taken == [("x1", "a"), ("x1", "b"), ("x1", "c")]


async def test_one_whose_post_hangs_at_the_end_is_counted_and_kept(
    events: Events, posts: Posts, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openairun_operator.kube.events._FLUSH", 0.01)
    async with posting(events):
        events.emit(run(1), told("a"))
        events.emit(run(1), told("b"))
        await settle()
    assert "2 events are not posted yet" in caplog.text
    posts.open.set()
    async with posting(events):
        await settle()
    assert posts.taken == [("x1", "a"), ("x1", "b")]


def test_no_two_events_have_the_same_time(events: Events, posts: Posts, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are named by it."""

    class Still(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2026, 11, 21, tzinfo=UTC)

    monkeypatch.setattr("openairun_operator.kube.events.datetime", Still)
    for _ in range(3):
        events.emit(run(1), told("a"))
    waiting = [line.get_nowait()[2] for line in events._lines for _ in range(line.qsize())]
    assert len(set(waiting)) == 3
