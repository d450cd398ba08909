"""A server that is away for long: soon after it is back all runs are caught up, without a restart of the operator."""

from __future__ import annotations

import time
from collections.abc import Callable

from ground import Ground
from life import Life
from scenarios import BOTH
from verdict import Verdict

INTERVAL = 5.0
CATCHES_UP = INTERVAL + 10.0
"""Seconds that it may take once the server is back."""
_RUNS = 5


def api_server_away(ground: Ground, seconds: float) -> tuple[Verdict, float]:
    """What is wrong after such an outage, and how long it took to catch up."""

    def go() -> None:
        ground.api_proxy.cut("*", ".*", times=None)
        ground.api_proxy.cut_watches()

    return _away(ground, seconds, go, ground.api_proxy.heal)


def openai_away(ground: Ground, seconds: float) -> tuple[Verdict, float]:
    """As `api_server_away`, with OpenAI away."""
    return _away(ground, seconds, lambda: ground.openai_proxy.cut("*", ".*", times=None), ground.openai_proxy.heal)


def _away(
    ground: Ground, seconds: float, go: Callable[[], None], come_back: Callable[[], None]
) -> tuple[Verdict, float]:
    found = Verdict()
    lives = [Life(ground, api) for api in BOTH for _ in range(_RUNS)]
    for life in lives:
        life.apply("never", timeout="1h", pollingInterval=f"{INTERVAL:g}s")
    for life in lives:
        life.wait(life.is_going, "going")
    process = ground.operator.pid
    go()
    time.sleep(seconds / 2)
    for life in lives:
        ground.openai.play(life.status["runID"], "completed")
    time.sleep(seconds / 2)
    come_back()
    back = time.monotonic()
    took = 0.0
    try:
        for life in lives:
            life.wait(life.is_settled, "caught up", CATCHES_UP - took)
            took = time.monotonic() - back
    except AssertionError as error:
        found.stuck.append(f"{error}, {time.monotonic() - back:.0f} s after the server was back")
    if not ground.operator.running or ground.operator.pid != process:
        found.stuck.append("the operator had to start again")
    for life in lives:
        found.add(life.judge({"1": 1}, {"1"}))
        if not life.gone:
            life.delete()
    for life in lives:
        life.wait_gone()
        found.add(life.judge_the_end())
    return found, took
