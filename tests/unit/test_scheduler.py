"""The scheduler: who is worked on when, by whom, and that nobody is forgotten."""

import asyncio
import contextlib
import itertools
import logging
import selectors
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from openairun_operator.scheduler import Scheduler, TryAgainError


class VirtualSelector(selectors.DefaultSelector):
    """Never waits: time that a loop would spend waiting passes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self.time += timeout
        assert ready or timeout is not None, "everything waits for ever"
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.time


def in_virtual_time(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main)


@contextlib.asynccontextmanager
async def running(scheduler: Scheduler) -> Any:
    task = asyncio.create_task(scheduler.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Diary:
    """Notes who was worked on when, and how many at once."""

    def __init__(self, takes: float = 0.0, pauses: Callable[[str], float | None] = lambda key: None) -> None:
        self.takes = takes
        self.pauses = pauses
        self.lines: list[tuple[float, str]] = []
        self.now: set[str] = set()
        self.most = 0

    @property
    def keys(self) -> list[str]:
        return [key for _, key in self.lines]

    def times(self, key: str) -> list[float]:
        return [round(time - 1000, 3) for time, k in self.lines if k == key]

    async def work(self, key: str) -> float | None:
        assert key not in self.now, "two workers for one key"
        self.lines.append((asyncio.get_running_loop().time(), key))
        self.now.add(key)
        self.most = max(self.most, len(self.now))
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.now.remove(key)
        return self.pauses(key)


def test_a_key_is_worked_on_by_one_worker_at_a_time_and_again_if_woken_meanwhile() -> None:
    async def main() -> None:
        diary = Diary(takes=10)
        scheduler = Scheduler(diary.work, 4)
        async with running(scheduler):
            scheduler.wake("a")
            await asyncio.sleep(1)
            scheduler.wake("a")
            scheduler.wake("a")
            assert scheduler.known("a")
            await asyncio.sleep(60)
        assert diary.times("a") == [0, 10]
        assert not scheduler.known("a")

    in_virtual_time(main())


def test_work_that_is_cut_off_is_done_when_it_runs_again() -> None:
    """kopf may only begin anew."""

    async def main() -> None:
        diary = Diary(takes=10)
        scheduler = Scheduler(diary.work, 1)
        async with running(scheduler):
            scheduler.wake("a")
            await asyncio.sleep(1)
        async with running(scheduler):
            await asyncio.sleep(1)
        assert diary.times("a") == [0, 1]

    in_virtual_time(main())


def test_times_that_no_longer_count_take_little_room_and_those_that_do_are_kept() -> None:
    """A finished run that is deleted by hand was to be deleted tomorrow."""

    async def main() -> None:
        diary = Diary()
        scheduler = Scheduler(diary.work, 1)
        kept = [f"k{i}" for i in range(50)]
        for key in kept:
            scheduler.wake(key, 10, first=key == "k7")
        for i in range(5_000):
            scheduler.wake(f"gone{i}", 86_400)
            scheduler.forget(f"gone{i}")
        assert sum(map(len, scheduler._heaps.values())) < 500
        async with running(scheduler):
            await asyncio.sleep(20)
        assert diary.keys == ["k7", *(key for key in kept if key != "k7")]

    in_virtual_time(main())


def test_concurrency_is_bounded_and_all_get_their_turn() -> None:
    async def main() -> None:
        diary = Diary(takes=1)
        scheduler = Scheduler(diary.work, 3)
        async with running(scheduler):
            for i in range(10):
                scheduler.wake(f"k{i}")
            await asyncio.sleep(0.5)
            assert diary.most == 3
            await asyncio.sleep(10)
        assert diary.keys == [f"k{i}" for i in range(10)]
        assert diary.most == 3

    in_virtual_time(main())


def test_the_earliest_due_time_wins() -> None:
    async def main() -> None:
        diary = Diary()
        scheduler = Scheduler(diary.work, 1)
        async with running(scheduler):
            scheduler.wake("a", 30)
            scheduler.wake("b", 20)
            scheduler.wake("a", 10)
            scheduler.wake("a", 40)
            await asyncio.sleep(100)
        assert diary.times("a") == [10]
        assert diary.times("b") == [20]

    in_virtual_time(main())


def test_the_answer_of_work_is_when_the_key_is_due_again() -> None:
    async def main() -> None:
        diary = Diary(pauses=lambda key: 5.0)
        scheduler = Scheduler(diary.work, 1)
        async with running(scheduler):
            scheduler.wake("a")
            await asyncio.sleep(16)
        assert diary.times("a") == [0, 5, 10, 15]

    in_virtual_time(main())


def test_first_jumps_the_queue() -> None:
    async def main() -> None:
        diary = Diary(takes=1)
        scheduler = Scheduler(diary.work, 1)
        async with running(scheduler):
            for key in "abc":
                scheduler.wake(key)
            await asyncio.sleep(0.5)
            scheduler.wake("c", first=True)
            scheduler.wake("d", first=True)
            await asyncio.sleep(10)
        assert diary.keys == ["a", "c", "d", "b"]

    in_virtual_time(main())


async def test_who_hurries_is_known_until_it_is_forgotten() -> None:
    async def work(_: str) -> None:
        return None

    scheduler = Scheduler(work, 1)
    scheduler.wake("a")
    assert not scheduler.hurries()
    scheduler.wake("a", first=True)
    assert scheduler.hurries()
    scheduler.forget("a")
    assert not scheduler.hurries()


def test_what_is_urgent_finds_a_worker_though_all_hang_and_finds_one_again() -> None:
    async def main() -> None:
        times: dict[str, list[float]] = {}

        async def work(key: str) -> float | None:
            times.setdefault(key, []).append(asyncio.get_running_loop().time() - 1000)
            if key.startswith("hangs"):
                await asyncio.sleep(30)
            return 2.0

        scheduler = Scheduler(work, 3)
        async with running(scheduler):
            for number in range(9):
                scheduler.wake(f"hangs {number}")
            await asyncio.sleep(1)
            scheduler.wake("waits")
            scheduler.wake("is deleted", first=True)
            await asyncio.sleep(5)
        assert times["is deleted"] == pytest.approx([1, 3, 5])
        assert "waits" not in times

    in_virtual_time(main())


def test_what_is_urgent_takes_no_worker_of_the_others_though_all_of_it_hangs() -> None:
    async def main() -> None:
        times: dict[str, float] = {}

        async def work(key: str) -> None:
            times[key] = asyncio.get_running_loop().time() - 1000
            if key.startswith("hangs"):
                await asyncio.sleep(30)

        scheduler = Scheduler(work, 3)
        async with running(scheduler):
            for number in range(200):
                scheduler.wake(f"hangs {number}", first=True)
            await asyncio.sleep(1)
            scheduler.wake("goes on")
            await asyncio.sleep(1)
        assert times["goes on"] == 1
        assert len(times) == 128 + 1

    in_virtual_time(main())


def test_who_waits_while_no_worker_is_free_is_late_since_one_last_became_so() -> None:
    async def main() -> None:
        takes = 10.0

        async def work(key: str) -> None:
            await asyncio.sleep(takes)

        scheduler = Scheduler(work, 2)
        async with running(scheduler):
            for number in range(20):
                scheduler.wake(f"{number}", number / 1000)
            await asyncio.sleep(75)
            assert list(scheduler.late(11)) == []
            takes = 1000.0  # from the next ones on nobody moves
            await asyncio.sleep(100)
            assert min(late for _, late in scheduler.late(11)) == pytest.approx(95, abs=1)
            assert len(list(scheduler.late(11))) == 4

    in_virtual_time(main())


def test_who_waits_though_a_worker_is_free_is_late_since_it_was_due() -> None:
    async def main() -> None:
        scheduler = Scheduler(Diary().work, 2)
        async with running(scheduler):
            await asyncio.sleep(50)
            scheduler._due["forgotten"] = 1000.0
            await asyncio.sleep(50)
            assert list(scheduler.late(60)) == [("forgotten", pytest.approx(100))]

    in_virtual_time(main())


def test_a_key_that_is_worked_on_and_woken_does_not_hold_up_others() -> None:
    async def main() -> None:
        diary = Diary()

        async def work(key: str) -> float | None:
            diary.takes = 30 if key == "slow" else 0
            return await diary.work(key)

        scheduler = Scheduler(work, 4)
        async with running(scheduler):
            scheduler.wake("slow")
            scheduler.wake("quick", 5)
            await asyncio.sleep(1)
            scheduler.wake("slow")
            await asyncio.sleep(50)
        assert diary.times("quick") == [5]
        assert diary.times("slow") == [0, 30]

    in_virtual_time(main())


def test_an_exception_is_retried_with_back_off_and_the_key_is_never_lost(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        times: list[float] = []
        loop = asyncio.get_running_loop()

        async def work(key: str) -> float | None:
            times.append(loop.time())
            if len(times) <= 9:
                raise RuntimeError("unexpected")
            return None

        scheduler = Scheduler(work, 1, jitter=lambda: 0.5)
        async with running(scheduler):
            scheduler.wake("a")
            await asyncio.sleep(1000)
        pauses = [round(b - a, 3) for a, b in itertools.pairwise(times)]
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]

    with caplog.at_level(logging.ERROR):
        in_virtual_time(main())
    assert "trying again in 60 s" in caplog.text


@pytest.mark.parametrize("waits", ["by its own back-off", "by the scheduler's"])
def test_a_key_that_waits_for_its_next_try_keeps_no_worker_from_others(waits: str) -> None:
    async def main() -> None:
        diary = Diary(takes=1)

        async def work(key: str) -> float | None:
            await diary.work(key)
            if key != "failing":
                return None
            if waits == "by its own back-off":
                return 60.0
            raise TryAgainError("away")

        scheduler = Scheduler(work, 1)
        async with running(scheduler):
            scheduler.wake("failing")
            for i in range(5):
                scheduler.wake(f"other-{i}", 1 + i / 10)
            await asyncio.sleep(70)
        others = [time - 1000 for time, key in diary.lines if key != "failing"]
        assert others == pytest.approx([1, 2, 3, 4, 5]), "the one worker was free as soon as the try had failed"
        assert len(diary.times("failing")) > 1, "and the next try was not forgotten"

    in_virtual_time(main())


def test_what_failed_is_tried_again_at_once_when_there_is_reason_to() -> None:
    async def main() -> None:
        times: list[float] = []

        async def work(key: str) -> float | None:
            times.append(asyncio.get_running_loop().time() - 1000)
            if len(times) < 8:
                raise RuntimeError("unexpected")
            return None

        scheduler = Scheduler(work, 1, jitter=lambda: 0.5)
        async with running(scheduler):
            scheduler.wake("a")
            await asyncio.sleep(20)  # the sixth try would be at 31
            scheduler.retry("a")
            scheduler.retry("of which nobody knows")
            await asyncio.sleep(500)
            scheduler.retry("a")  # it did not fail: nothing to do
            await asyncio.sleep(500)
        assert times == pytest.approx([0, 1, 3, 7, 15, 20, 21, 23])

    in_virtual_time(main())


def test_pauses_after_failures_are_spread_by_20_percent() -> None:
    async def main() -> None:
        times: list[float] = []

        async def work(key: str) -> float | None:
            times.append(asyncio.get_running_loop().time() - 1000)
            raise RuntimeError("unexpected")

        jitters = iter([0.0, 0.5, 1.0])
        scheduler = Scheduler(work, 1, jitter=lambda: next(jitters, 0.5))
        async with running(scheduler):
            scheduler.wake("a")
            await asyncio.sleep(10)
        assert times[:4] == pytest.approx([0, 0.8, 2.8, 7.6])

    in_virtual_time(main())


def test_after_a_success_the_back_off_begins_anew() -> None:
    async def main() -> None:
        outcomes: Iterator[float | None] = iter([None, None, 100.0, None, 7.0])
        times: list[float] = []

        async def work(key: str) -> float | None:
            times.append(asyncio.get_running_loop().time() - 1000)
            pause = next(outcomes, -1.0)
            if pause is None:
                raise RuntimeError("unexpected")
            return None if pause < 0 else pause

        scheduler = Scheduler(work, 1, jitter=lambda: 0.5)
        async with running(scheduler):
            scheduler.wake("a")
            await asyncio.sleep(500)
        assert times == pytest.approx([0, 1, 3, 103, 104, 111])

    in_virtual_time(main())


def test_a_forgotten_key_is_not_worked_on() -> None:
    async def main() -> None:
        diary = Diary()
        scheduler = Scheduler(diary.work, 1)
        async with running(scheduler):
            scheduler.wake("a", 5)
            scheduler.wake("b", 6)
            scheduler.forget("a")
            assert not scheduler.known("a")
            await asyncio.sleep(20)
        assert diary.keys == ["b"]

    in_virtual_time(main())


def test_lag_is_how_late_the_most_overdue_key_is() -> None:
    async def main() -> None:
        diary = Diary(takes=10)
        scheduler = Scheduler(diary.work, 1)
        async with running(scheduler):
            scheduler.wake("a")
            scheduler.wake("b", 2)
            assert scheduler.lag() <= 0
            await asyncio.sleep(8)
            assert scheduler.lag() == pytest.approx(6)

    in_virtual_time(main())


def test_cancelling_it_cancels_the_work_under_way_and_waits_for_it() -> None:
    async def main() -> None:
        ended: list[str] = []

        async def work(key: str) -> float | None:
            try:
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(1)
                ended.append(key)
            return None

        scheduler = Scheduler(work, 2)
        task = asyncio.create_task(scheduler.run())
        for key in "abc":
            scheduler.wake(key)
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(ended) == ["a", "b"]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    in_virtual_time(main())


def test_what_becomes_due_within_a_moment_is_done_together() -> None:
    """Woken for each of thousands of looks, the process would spend most of its time on waking up."""

    async def main() -> None:
        diary = Diary()
        scheduler = Scheduler(diary.work, 100)
        for number in range(100):
            scheduler.wake(f"k{number}", number / 100)
        async with running(scheduler):
            await asyncio.sleep(2)
            scheduler.wake("woken")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert len({time for time, _ in diary.lines}) <= 22
        assert all(0 <= diary.times(f"k{number}")[0] - number / 100 <= 0.051 for number in range(100))
        assert diary.times("woken") == [2.0]

    in_virtual_time(main())
