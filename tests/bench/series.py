"""One flight after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from contestants import OURS
from figures import complete
from world import BenchError


class Flying(Protocol):
    """What a `Flight` does."""

    figures: dict[str, Any]

    async def fly(self, phases: Sequence[str], saved: Callable[[], None]) -> None: ...

    async def clean_up(self) -> None: ...


_Flying = TypeVar("_Flying", bound=Flying)


def still_to_fly(planned: Sequence[_Flying], results: dict[str, Any]) -> list[_Flying]:
    """Those that `results` lack; nothing is left there of what is flown anew.

    Of a size that is not whole, all are: those that are compared are flown in one sitting. A baseline that died is
    not asked again.
    """
    flown = {
        (each["operator"], each["n"])
        for each in results["flights"]
        if complete(each) or ("error" in each and each["operator"] != OURS.name)
    }
    lacking = {each.figures["n"] for each in planned if (each.figures["operator"], each.figures["n"]) not in flown}
    results["flights"] = [each for each in results["flights"] if each["n"] not in lacking]
    return [each for each in planned if each.figures["n"] in lacking]


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
