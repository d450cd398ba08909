"""One flight after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from contestants import OURS
from world import BenchError


class Flying(Protocol):
    """What a `Flight` does."""

    figures: dict[str, Any]

    async def fly(self, phases: Sequence[str], saved: Callable[[], None]) -> None: ...

    async def clean_up(self) -> None: ...


async def fly_all(
    planned: Sequence[Flying], phases: Sequence[str], results: dict[str, Any], write: Callable[[], None]
) -> None:
    """Fly them all; `write` is called whenever `results` hold more.

    A baseline that dies is no reason to stop: it is written down. That ours dies is one.
    """
    for flight in planned:
        results["flights"].append(flight.figures)
        try:
            await flight.fly(phases, write)
        except BenchError as error:
            flight.figures["error"] = str(error)
            write()
            if flight.figures["operator"] == OURS.name:
                raise
            print(f"It goes on without it: {error}", flush=True)
        if flight is not planned[-1]:  # after that one the cluster goes
            await flight.clean_up()
            write()
