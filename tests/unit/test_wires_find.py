"""A run whose create got no answer is found again by its token, and is not said to be absent without knowing."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web

from openairun_devkit.openai import OpenAIStandIn
from openairun_operator.api.names import TOKEN_KEY
from openairun_operator.api.reasons import Reason
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.lifecycle.failure import CallFailedError
from openairun_operator.lifecycle.observation import CreateRequest, RunObservation
from openairun_operator.wires.build import wire
from openairun_operator.wires.clients import Clients, Credentials

pytestmark = pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")

NOW = 1_790_000_000.0
SINCE = datetime.fromtimestamp(NOW, UTC)

Page = Callable[[str | None], Any]
"""The list's answer to `after`."""


class Threads:
    """A server of the Assistants API that knows the list of runs alone."""

    def __init__(self) -> None:
        self.page: Page = lambda after: {"data": [], "has_more": False}
        self.asked: list[dict[str, str]] = []

    async def serve(self, request: web.BaseRequest) -> web.Response:
        query = {name: values[0] for name, values in parse_qs(request.query_string).items()}
        self.asked.append(query)
        if len(self.asked) > 300:  # an endless search would have to stop somewhere
            return web.json_response({"error": {"message": "too many requests"}}, status=429)
        return web.json_response(self.page(query.get("after")))


class Search:
    """The search of one thread."""

    def __init__(self, threads: Threads, clients: Clients, url: str) -> None:
        self.threads = threads
        self._wire = wire("Assistants", clients, Credentials(url, "sk-standin"))

    async def __call__(self, token: str = "mine") -> RunObservation | None:
        return await self._wire.find("thread_1", token, SINCE)


@pytest.fixture
async def search() -> AsyncIterator[Search]:
    threads, clients = Threads(), Clients(5)
    runner = web.ServerRunner(web.Server(threads.serve))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Search(threads, clients, f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
    await clients.close()
    await runner.cleanup()


def run(n: int, *, age: float = 0, token: str | None = None) -> dict[str, Any]:
    metadata = {} if token is None else {TOKEN_KEY: token}
    created = NOW - age
    return {"id": f"run_{n}", "status": "queued", "thread_id": "thread_1", "created_at": created, "metadata": metadata}


def pages(*runs: dict[str, Any], size: int = 2) -> Page:
    """A list as OpenAI pages it."""

    def page(after: str | None) -> Any:
        ids = [each["id"] for each in runs]
        start = ids.index(after) + 1 if after else 0
        return {"object": "list", "data": runs[start : start + size], "has_more": start + size < len(runs)}

    return page


async def test_a_run_is_found_among_others_over_several_pages() -> None:
    async with OpenAIStandIn() as server:
        clients = Clients(5)
        carrier = wire("Assistants", clients, Credentials(server.url, "sk-standin"))
        spec = OpenAIRunSpec(assistantID="asst_1", threadID="thread_1")
        ids = [(await carrier.create(CreateRequest(spec, None, {TOKEN_KEY: f"t{n}"}))).id for n in range(120)]
        since = datetime.now(UTC)
        found = [await carrier.find("thread_1", f"t{n}", since) for n in (0, 119)]
        assert [each.id for each in found if each] == [ids[0], ids[119]]
        assert await carrier.find("thread_1", "another", since) is None
        assert await carrier.find("thread_2", "t0", since) is None
        lists = [request.query for request in server.requests("GET", "/runs$")]
        assert lists[0] == "limit=100&order=desc"
        assert lists[1] == f"after={ids[20]}&limit=100&order=desc"
        await clients.close()


async def test_the_token_alone_identifies_a_run(search: Search) -> None:
    other = run(1) | {"metadata": {"team": "mine"}}
    search.threads.page = pages(other, run(2) | {"metadata": None}, run(3, token="yours"), run(4, token="mine"))
    found = await search()
    assert found is not None
    assert (found.id, found.thread, found.status) == ("run_4", "thread_1", "queued")


async def test_older_runs_end_the_search(search: Search) -> None:
    search.threads.page = pages(run(1), run(2, age=3600), run(3, age=7200, token="mine"))
    assert await search() is None
    assert len(search.threads.asked) == 1


async def test_a_server_whose_clock_is_behind_is_searched_far_enough(search: Search) -> None:
    search.threads.page = pages(run(1, age=100), run(2, age=200), run(3, age=250, token="mine"))
    assert await search()


async def test_times_in_milliseconds_do_not_end_the_search_too_late(search: Search) -> None:
    runs = [run(n, age=1000.0 * n) for n in range(1, 9)]
    search.threads.page = pages(*({**each, "created_at": each["created_at"] * 1000} for each in runs))
    assert await search() is None
    assert len(search.threads.asked) == 1


async def test_an_empty_thread_has_no_run(search: Search) -> None:
    assert await search() is None
    assert len(search.threads.asked) == 1


async def test_a_list_in_the_other_order_is_read_to_its_end(search: Search) -> None:
    """Some servers ignore `order`: then the oldest come first, and end nothing."""
    search.threads.page = pages(run(1, age=7200), run(2, age=3600), run(3, age=10), run(4, token="mine"))
    found = await search()
    assert found is not None
    assert found.id == "run_4"


CANNOT_TELL: dict[str, Page] = {
    "no list": lambda after: {},
    "another type": lambda after: {"data": {"run_1": {}}, "has_more": False},
    "more, but nothing to go on from": lambda after: {"data": [], "has_more": True},
    "more, but no id to go on from": lambda after: {"data": [{"status": "queued"}], "has_more": True},
    "the same page again and again": lambda after: {"data": [run(1), run(2)], "has_more": True},
    "more without end": lambda after: {"data": [run(int((after or "run_0")[4:]) + 1)], "has_more": True},
}


@pytest.mark.parametrize("what", CANNOT_TELL)
async def test_a_list_that_does_not_tell_is_no_proof_of_absence(search: Search, what: str) -> None:
    """None would make the operator create another run."""
    search.threads.page = CANNOT_TELL[what]
    with pytest.raises(CallFailedError) as raised:
        await search()
    assert raised.value.failure.reason is Reason.UNREADABLE_ANSWER
    assert len(search.threads.asked) <= 200


async def test_a_full_page_that_denies_more_is_not_believed(search: Search) -> None:
    """Servers cut the list at the limit and leave `has_more` out, or always false."""
    runs = [run(n) for n in range(100)]
    search.threads.page = lambda after: {"data": [run(100, token="mine")] if after == "run_99" else runs}
    found = await search()
    assert found is not None
    assert found.id == "run_100"


async def test_a_server_that_ignores_after_and_denies_more_ends_the_search(search: Search) -> None:
    """All that there is has come twice, and the token is not in it."""
    search.threads.page = lambda after: {"data": [run(n) for n in range(100)], "has_more": False}
    assert await search() is None
    assert len(search.threads.asked) == 2
