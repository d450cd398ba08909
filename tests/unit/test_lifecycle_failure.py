"""How soon what failed is tried again."""

import pytest

from openairun_operator.api.reasons import Reason
from openairun_operator.lifecycle.failure import AWAY as AWAY_REASONS
from openairun_operator.lifecycle.failure import NEEDS_PERSON, PERSON_RETRY, Failure, retry_delay

AWAY = Failure(reason=Reason.UNREACHABLE, message="away")
JITTERS = [0.0, 0.25, 0.5, 0.75, 0.999999]


def limited(seconds: float) -> Failure:
    return Failure(reason=Reason.RATE_LIMITED, message="slow down", retry_after=seconds)


def test_passing_trouble_is_tried_again_after_2_s_and_ever_later_up_to_60_s() -> None:
    passing = Failure(reason=Reason.BUSY, message="busy")
    delays = [retry_delay(passing, failures, 0.5) for failures in (1, 2, 3, 4, 5, 6, 7, 100, 10_000)]
    assert delays == pytest.approx([2, 4, 8, 16, 32, 60, 60, 60, 60])


@pytest.mark.parametrize("reason", sorted(AWAY_REASONS))
@pytest.mark.parametrize("interval", [1, 5, 30, 3600])
def test_a_server_that_is_away_is_tried_again_soon_enough_to_catch_up_when_it_is_back(
    reason: Reason, interval: float
) -> None:
    delays = [retry_delay(Failure(reason=reason, message="away"), 100, jitter, interval) for jitter in JITTERS]
    assert max(delays) < min(interval + 9.5, 72)
    assert min(delays) > 2


def test_a_server_that_asks_for_patience_is_given_it_whatever_the_interval() -> None:
    assert retry_delay(Failure(reason=Reason.RATE_LIMITED, message="slow down"), 100, 0.5, 5) == pytest.approx(60)
    away = Failure(reason=Reason.SERVER_ERROR, message="busy", retry_after=45)
    assert retry_delay(away, 100, 0.0, 5) >= 45


@pytest.mark.parametrize("reason", sorted(NEEDS_PERSON))
def test_what_a_person_must_mend_is_tried_again_every_5_minutes(reason: Reason) -> None:
    failure = Failure(reason=reason, message="mend it")
    assert [retry_delay(failure, n, 0.5) for n in (1, 2, 100)] == pytest.approx([300, 300, 300])


@pytest.mark.parametrize("failures", [1, 3, 50])
@pytest.mark.parametrize("failure", [AWAY, Failure(reason=Reason.QUOTA_EXCEEDED, message="pay")], ids=str)
def test_all_pauses_are_spread_by_20_percent_to_either_side(failure: Failure, failures: int) -> None:
    middle = retry_delay(failure, failures, 0.5)
    delays = [retry_delay(failure, failures, jitter) for jitter in JITTERS]
    assert delays == sorted(set(delays))
    assert delays[0] == pytest.approx(0.8 * middle)
    assert delays[-1] == pytest.approx(1.2 * middle, rel=1e-4)


def test_it_is_never_before_the_time_that_the_server_asks_for() -> None:
    for seconds in (0.5, 3, 30, 600):
        for failures in (1, 4, 20):
            for jitter in JITTERS:
                assert retry_delay(limited(seconds), failures, jitter) >= seconds


def test_many_that_were_told_the_same_time_do_not_all_come_back_at_it() -> None:
    delays = [retry_delay(limited(30), 1, jitter) for jitter in JITTERS]
    assert delays == sorted(set(delays))
    assert (delays[0], delays[-1]) == (pytest.approx(30), pytest.approx(36, rel=1e-4))


def test_a_short_wish_of_the_server_shortens_no_pause() -> None:
    assert retry_delay(limited(1), 6, 0.5) == pytest.approx(60)
    no_credit = Failure(reason=Reason.QUOTA_EXCEEDED, message="pay", retry_after=1)
    assert retry_delay(no_credit, 1, 0.5) == PERSON_RETRY
