"""Requests to the API server: so many at once, what was begun first, and nobody waits for ever or in vain."""

from __future__ import annotations

import asyncio

import pytest
from test_scheduler import in_virtual_time

from openairun_operator.kube.room import Room


class Requests:
    """Requests that take their turns in a room, and end when they are told to."""

    def __init__(self, most: int) -> None:
        self.room = Room(most)
        self.going: dict[str, asyncio.Event] = {}
        self.order: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def _go(self, name: str, begins: bool) -> None:
        async with self.room.turn(begins=begins):
            self.order.append(name)
            self.going[name] = asyncio.Event()
            await self.going[name].wait()
            del self.going[name]

    async def ask(self, *names: str, begins: bool = False) -> None:
        for name in names:
            self.tasks[name] = asyncio.create_task(self._go(name, begins))
        await self.passes()

    async def end(self, name: str | None = None) -> None:
        self.going[name or next(iter(self.going))].set()
        await self.passes()

    async def passes(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


async def test_so_many_go_at_once_and_the_others_in_order() -> None:
    requests = Requests(2)
    await requests.ask("a", "b", "c", "d")
    assert requests.order == ["a", "b"]
    await requests.end("b")
    assert list(requests.going) == ["a", "c"]
    await requests.end("a")
    assert list(requests.going) == ["c", "d"]
    for name in "cd":
        await requests.end(name)
    await requests.ask("e", "f", "g")
    assert list(requests.going) == ["e", "f"]


async def test_what_was_begun_is_finished_before_more_is_begun() -> None:
    requests = Requests(1)
    await requests.ask("first")
    await requests.ask(*(f"claim-{number}" for number in range(4)), begins=True)
    await requests.ask("status", "id")
    for _ in range(2):
        await requests.end()
    assert requests.order == ["first", "status", "id"]


@pytest.mark.parametrize("begins", [False, True])
async def test_neither_keeps_the_other_waiting_for_ever(begins: bool) -> None:
    requests = Requests(1)
    await requests.ask("first")
    await requests.ask(*(f"other-{number}" for number in range(40)), begins=not begins)
    await requests.ask("mine", begins=begins)
    for _ in range(4):
        await requests.end()
    assert "mine" in requests.order


async def test_beginners_have_all_of_it_where_nobody_else_waits() -> None:
    requests = Requests(4)
    await requests.ask(*"abcdef", begins=True)
    assert requests.order == [*"abcd"]
    await requests.end()
    await requests.end()
    assert list(requests.going) == [*"cdef"]


async def test_who_gives_up_takes_no_turn_and_loses_none() -> None:
    """Whether its turn came just then, or not yet."""
    requests = Requests(1)
    await requests.ask("a", "b", "c", "d")
    requests.tasks["b"].cancel()
    requests.going["a"].set()
    await requests.passes()
    assert list(requests.going) == ["c"]
    requests.going["c"].set()
    await asyncio.sleep(0)
    assert "c" not in requests.going
    requests.tasks["d"].cancel()  # it has its turn by now, and does not know yet
    await requests.passes()
    assert (requests.going, requests.order) == ({}, ["a", "c"])
    await requests.ask("e")
    assert list(requests.going) == ["e"]


async def test_who_fails_passes_on_its_turn() -> None:
    room = Room(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="failed"):
            async with room.turn():
                raise ValueError("failed")


@pytest.mark.parametrize("begins", [False, True])
def test_while_requests_hang_nobody_waits_long_for_a_turn(begins: bool) -> None:
    async def main() -> None:
        requests = Requests(1)
        await requests.ask("hangs")
        await requests.ask("waits", begins=begins)
        await asyncio.sleep(60)
        assert not requests.tasks["waits"].done(), "nothing hangs yet"
        requests.room.note_answer(hangs=True)
        await asyncio.sleep(3)
        assert not requests.tasks["waits"].done()
        await requests.ask("late", begins=begins)
        await asyncio.sleep(2)
        assert isinstance(requests.tasks["waits"].exception(), TimeoutError)
        requests.room.note_answer(hangs=False)
        await asyncio.sleep(60)
        assert not requests.tasks["late"].done(), "they are answered again"
        await requests.end("hangs")
        assert list(requests.going) == ["late"]
        await requests.end()

    in_virtual_time(main())


def test_an_answer_may_come_just_when_somebody_has_lost_patience() -> None:
    """It is not the one who got it that has failed."""

    async def main() -> None:
        requests, loop = Requests(1), asyncio.get_running_loop()
        requests.room.note_answer(hangs=True)
        await requests.ask("hangs", "waits", "late")
        answers: list[bool] = []

        def answer() -> None:
            requests.room.note_answer(hangs=False)
            answers.append(True)

        (waits, *_) = requests.room._waiting
        loop.call_at(waits.when() or 0.0, answer)  # in the same turn of the loop, and after it
        await asyncio.sleep(5)
        assert answers
        assert isinstance(requests.tasks["waits"].exception(), TimeoutError)
        await requests.end("hangs")
        await requests.passes()

    in_virtual_time(main())
