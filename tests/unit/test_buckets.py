"""The buckets: how many requests are sent in any window, and who waits for whom."""

import functools
import heapq
import itertools
import random
from collections.abc import Callable, Iterator

import pytest

from openairun_operator.buckets import LINE, Bucket, Buckets


class Clock:
    def __init__(self, now: float = 1e6) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def bucket(per_minute: float = 60, burst: int = 1) -> tuple[Bucket, Clock]:
    """By default one a second."""
    clock = Clock()
    return Bucket(per_minute, burst, clock), clock


def take(it: Bucket, count: int) -> list[float | None]:
    return [it.take() for _ in range(count)]


def due(it: Bucket, places: list[float | None]) -> list[float]:
    return [round(it.due(place), 3) for place in places]


def test_the_burst_at_once_and_then_the_rate() -> None:
    it, clock = bucket(120, 3)
    places = take(it, 6)
    assert due(it, places) == [0, 0, 0, 0.5, 1, 1.5]
    clock.now += 1
    assert due(it, places) == [0, 0, 0, 0, 0, 0.5]
    assert due(it, take(it, 1)) == [1]


def test_what_is_not_sent_is_saved_up_to_the_burst() -> None:
    it, clock = bucket(60, 3)
    take(it, 5)
    clock.now += 4
    assert due(it, take(it, 3)) == [0, 0, 1]
    clock.now += 1000
    assert due(it, take(it, 5)) == [0, 0, 0, 1, 2]


def test_who_comes_when_told_may_send_in_spite_of_rounding() -> None:
    it, clock = bucket(7000 / 3, 1)
    for _ in range(2000):
        place = it.take()
        clock.now += it.due(place)
        assert it.due(place) == 0


def test_a_request_out_of_turn_makes_all_others_wait() -> None:
    it, clock = bucket(60, 2)
    places = take(it, 4)
    it.spend()
    it.spend()
    assert due(it, places) == [2, 2, 3, 4]
    assert due(it, take(it, 1)) == [5]
    clock.now += 1000
    it.spend()
    assert due(it, take(it, 2)) == [0, 1]


def test_a_full_line_gives_no_places() -> None:
    it, clock = bucket()
    places = take(it, 700)
    assert places[601:] == [None] * 99
    assert it.due(places[600]) == LINE
    assert it.due(None) == LINE
    clock.now += 10
    assert due(it, take(it, 11)) == [*range(591, 601), LINE]
    assert due(it, places[:12]) == [0] * 11 + [1]


def test_requests_out_of_turn_do_not_make_the_line_longer_than_it_may_be() -> None:
    it, clock = bucket()
    for _ in range(5000):
        it.spend()
    place = it.take()
    assert it.due(place) == LINE
    assert it.take() is None
    clock.now += LINE
    assert it.due(place) == 0


def test_patience_moves_all_who_stand_in_line_and_takes_the_burst() -> None:
    it, clock = bucket(60, 2)
    places = take(it, 4)
    assert due(it, places) == [0, 0, 1, 2]
    assert it.held() == 0
    it.hold(30)
    assert it.held() == 30
    clock.now += 10
    assert due(it, places) == [20, 20, 21, 22]
    assert due(it, take(it, 2)) == [23, 24]
    clock.now += 20.5
    assert it.held() == 0
    assert due(it, places) == [0, 0, 0.5, 1.5]
    clock.now += 1000
    it.hold(5)
    assert due(it, take(it, 3)) == [5, 6, 7]


def test_the_longest_patience_wins() -> None:
    it, clock = bucket()
    it.hold(30)
    it.hold(10)
    it.hold(-1)
    assert it.held() == 30
    clock.now += 10
    it.hold(40)
    assert it.held() == 40
    clock.now += 40
    assert due(it, take(it, 2)) == [0, 1]


def test_nobody_is_sent_away_for_longer_than_the_line() -> None:
    it, clock = bucket()
    place = it.take()
    it.hold(2 * LINE)
    assert it.due(place) == LINE
    clock.now += LINE
    assert it.due(place) == LINE
    clock.now += LINE
    assert it.due(place) == 0


def test_another_rate_moves_those_who_stand_in_line() -> None:
    it, clock = bucket(60, 1)
    places = take(it, 7)
    clock.now += 2
    it.change(120, 1)
    assert due(it, places) == [0, 0, 0, 0.5, 1, 1.5, 2]
    clock.now += 1
    it.change(6, 1)
    assert due(it, places) == [0, 0, 0, 0, 0, 10, 20]
    assert due(it, take(it, 1)) == [30]


def test_a_larger_burst_has_to_be_saved_first_and_a_smaller_one_counts_at_once() -> None:
    it, clock = bucket(60, 2)
    it.change(60, 5)
    assert due(it, take(it, 3)) == [0, 0, 1]
    clock.now += 1000
    it.change(60, 3)
    assert due(it, take(it, 4)) == [0, 0, 0, 1]


def test_a_place_of_another_bucket_keeps_nobody_waiting() -> None:
    old, _ = bucket(60, 1)
    place = take(old, 500)[-1]
    it, _ = bucket(60, 1)
    assert it.due(place) == 0
    it.hold(3)
    assert it.due(place) == 3


def test_looks_leave_a_fifth_of_the_rate() -> None:
    it, _ = bucket(1000, 10)
    assert it.interval(0) == 0
    assert it.interval(5000) == pytest.approx(5000 / 800 * 60)


# --- many runs

RUNS = 5000
Events = dict[float, Callable[[], None]]
"""What else happens, by seconds after the start."""


def most_beyond(sent: list[float], per_minute: float) -> float:
    """By how many requests any window holds more than the rate allows in it."""
    least, most = float("inf"), 0.0
    for count, at in enumerate(sent):
        mark = count - at * per_minute / 60
        least = min(least, mark)
        most = max(most, mark + 1 - least)
    return most


def simulate(
    it: Bucket,
    clock: Clock,
    runs: int,
    pause: float,
    until: float,
    events: Events | None = None,
) -> Iterator[tuple[float, int]]:
    """When which run is looked at: each wants it `pause` seconds after the last time. Events come in between."""
    start = clock.now
    order = itertools.count()
    heap: list[tuple[float, int, int, float | None]] = [(start, next(order), run, None) for run in range(runs)]
    rest = sorted((events or {}).items())
    while heap[0][0] < start + until:
        at, _, run, place = heapq.heappop(heap)
        while rest and start + rest[0][0] <= at:
            clock.now = start + rest[0][0]
            rest.pop(0)[1]()
        clock.now = at
        place = it.take() if place is None else place
        wait = it.due(place)
        if not wait:
            yield at - start, run
            wait, place = pause, None
        heapq.heappush(heap, (at + wait, next(order), run, place))


@pytest.mark.parametrize("pause", [1.0, 300.0, 375.0, 1000.0])
def test_many_runs_never_go_beyond_the_rate_and_use_it(pause: float) -> None:
    it, clock = bucket(1000, 50)
    looks = list(simulate(it, clock, RUNS, pause, 1800))
    sent = [at for at, _ in looks]
    assert most_beyond(sent, 1000) <= 50 + 1e-3
    assert len(sent) >= 0.99 * min(1000 * 30, RUNS * (1800 / pause))
    counts = [0] * RUNS
    for _, run in looks:
        counts[run] += 1
    assert max(counts) - min(counts) <= 1


def test_more_runs_than_fit_into_the_line_all_have_their_turn() -> None:
    it, clock = bucket(60, 5)
    looks = list(simulate(it, clock, 1500, 1e6, 3000))
    assert most_beyond([at for at, _ in looks], 60) <= 5 + 1e-3
    assert sorted(run for _, run in looks) == list(range(1500))


def test_after_patience_many_come_at_the_rate() -> None:
    it, clock = bucket(1000, 50)
    looks = list(simulate(it, clock, RUNS, 1e6, 600, {60: lambda: it.hold(120), 200: lambda: it.hold(20)}))
    sent = [at for at, _ in looks]
    assert not [at for at in sent if 60 < at < 180 or 200 < at < 220]
    assert most_beyond([at for at in sent if at >= 180], 1000) <= 1 + 1e-3
    assert len(sent) == RUNS
    assert [run for _, run in looks] == list(range(RUNS))


def test_whatever_happens_windows_hold_no_more_than_they_may() -> None:
    for seed in range(20):
        dice = random.Random(seed)
        it, clock = bucket(1000, 20)
        holds: list[tuple[float, float]] = []

        def hold(at: float, seconds: float, it: Bucket = it, holds: list[tuple[float, float]] = holds) -> None:
            it.hold(seconds)
            holds.append((at, at + seconds))

        events: Events = {}
        for _ in range(100):
            at = dice.uniform(0, 280)
            if dice.random() < 0.1:
                events[at] = functools.partial(hold, at, dice.uniform(0, 5))
            else:
                events[at] = it.spend
        sent = [at for at, _ in simulate(it, clock, 500, dice.choice([1, 20, 60]), 300, events)]
        assert not [at for at in sent if any(start < at < end - 1e-6 for start, end in holds)]
        assert most_beyond(sent, 1000) <= 20 + 1e-3
        spent = len(events) - len(holds)
        assert len(sent) + spent <= 1000 * 5 + 20 + 1e-3


def test_a_rate_that_changes_counts_from_then_on() -> None:
    it, clock = bucket(1000, 10)
    events: Events = {60: lambda: it.change(100, 10), 180: lambda: it.change(2000, 40)}
    sent = [at for at, _ in simulate(it, clock, RUNS, 60, 300, events)]
    first, second, third = ([at for at in sent if start <= at < end] for start, end in ((0, 60), (60, 180), (180, 300)))
    assert most_beyond(first, 1000) <= 10 + 1e-3
    assert most_beyond(second, 100) <= 10 + 1e-3
    # Who was told to come later comes when he was told to, beside those who are due by the new rate.
    assert most_beyond(third, 2000 + 1000) <= 40 + 1e-3
    assert len(third) >= 1000 * 2


# --- many buckets


def test_who_is_the_same_has_one_bucket_whatever_the_provider() -> None:
    buckets = Buckets(Clock())
    a = buckets.get("a", "p", 60, 1)
    assert buckets.get("a", "q", 60, 1) is a
    assert buckets.get("b", "p", 60, 1) is not a
    assert len(buckets) == 2


def test_of_several_providers_the_smallest_rate_counts() -> None:
    clock = Clock()
    buckets = Buckets(clock)
    it = buckets.get("k", "fast", 6000, 10)
    assert due(it, take(it, 12))[-1] == 0.02
    buckets.get("k", "slow", 60, 1)
    clock.now += 100
    buckets.get("k", "fast", 6000, 10)
    assert due(it, take(it, 2)) == [0, 1]
    clock.now += 100
    buckets.get("k", "slow", 120, 2)
    assert due(it, take(it, 3)) == [0, 0.5, 1.0]


def test_a_provider_that_has_gone_counts_no_longer_after_a_while() -> None:
    clock = Clock()
    buckets = Buckets(clock)
    it = buckets.get("k", "slow", 60, 1)
    for _ in range(11):
        clock.now += 60
        assert buckets.get("k", "fast", 6000, 1) is it
    take(it, 1)
    assert due(it, take(it, 1)) == [0.01]


def test_idle_buckets_are_dropped_and_others_are_not() -> None:
    clock = Clock()
    buckets = Buckets(clock)
    for i in range(1000):
        buckets.get(f"key {i}", "p", 60, 1)
    held, used, waited_for = (buckets.get(name, "p", 60, 1) for name in ("held", "used", "waited for"))
    held.hold(3000)
    clock.now += 590
    used = buckets.get("used", "p", 60, 1)
    take(waited_for, 100)
    clock.now += 20
    buckets.get("new", "p", 60, 1)
    assert len(buckets) == 4
    assert buckets.get("held", "p", 60, 1) is held
    assert buckets.get("used", "p", 60, 1) is used
    assert buckets.get("waited for", "p", 60, 1) is waited_for
    clock.now += 3000
    buckets.get("new", "p", 60, 1)
    assert len(buckets) == 1
