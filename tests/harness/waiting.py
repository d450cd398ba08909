"""Waiting for something to become true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout: float, what: str) -> T:
    """Ask every 50 ms until the answer is truthy, and return it; `timeout` in seconds.

    An exception of the predicate counts as "not yet"; the last one is the cause of the failure.
    `what` completes "waited for …".
    """
    deadline = time.monotonic() + timeout
    answer: object = None
    problem: Exception | None = None
    while True:
        try:
            if answer := predicate():
                return answer
            problem = None
        except Exception as error:  # noqa: BLE001 - any error means "not yet", and is shown below
            problem = error
        if time.monotonic() >= deadline:
            last = f"the last answer was {problem!r}" if problem else f"the last answer was {answer!r}"
            raise AssertionError(f"waited {timeout:g} s for {what}, in vain; {last}") from problem
        time.sleep(0.05)
