"""An action's first request is paid for; each further one is charged before it is sent."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from openairun_devkit.openai import OpenAIStandIn
from openairun_operator.api.record import API
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.lifecycle.failure import CallFailedError
from openairun_operator.lifecycle.observation import CreateRequest, RunRef
from openairun_operator.wires.build import wire
from openairun_operator.wires.clients import Clients, Credentials
from openairun_operator.wires.protocol import Wire

pytestmark = pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")

SPECS: dict[API, OpenAIRunSpec] = {
    "Responses": OpenAIRunSpec(input="Hello", model="gpt-standin"),
    "Assistants": OpenAIRunSpec(assistantID="asst_1", threadID="thread_1"),
}
APIS = pytest.mark.parametrize("api", SPECS)


class Spending:
    """What was charged: for each, how many requests had been sent."""

    def __init__(self, server: OpenAIStandIn, clients: Clients) -> None:
        self.server = server
        self._clients = clients
        self.sent_before: list[int] = []

    def wire(self, api: API) -> Wire:
        self.server.clear_requests()
        self.sent_before.clear()
        return wire(api, self._clients, Credentials(self.server.url, "sk-standin"), self._spend)

    def _spend(self) -> None:
        self.sent_before.append(len(self.server.requests()))

    def charged_for_all_but_the_first(self) -> bool:
        return self.sent_before == list(range(1, len(self.server.requests())))


@pytest.fixture
async def spending() -> AsyncIterator[Spending]:
    clients = Clients(5)
    async with OpenAIStandIn() as server:
        yield Spending(server, clients)
    await clients.close()


@APIS
async def test_one_request_is_paid_for(spending: Spending, api: API) -> None:
    made = await spending.wire(api).create(CreateRequest(SPECS[api]))
    await spending.wire(api).observe(RunRef(api, made.id, "thread_1"))
    assert not spending.sent_before


@APIS
async def test_the_look_after_a_refused_cancel_is_charged(spending: Spending, api: API) -> None:
    made = await spending.wire(api).create(CreateRequest(SPECS[api]))
    spending.server.add_fault("POST cancel", status=409)
    await spending.wire(api).cancel(RunRef(api, made.id, "thread_1"))
    assert spending.sent_before == [1]
    assert spending.charged_for_all_but_the_first()


async def test_the_pages_of_a_search_are_charged(spending: Spending) -> None:
    for _ in range(150):
        await spending.wire("Assistants").create(CreateRequest(SPECS["Assistants"]))
    await spending.wire("Assistants").find("thread_1", "no-such-token", datetime(2020, 1, 1, tzinfo=UTC))
    assert len(spending.sent_before) == 1
    assert spending.charged_for_all_but_the_first()


@pytest.mark.parametrize("status", [500, 200])
async def test_what_fails_is_charged_too(spending: Spending, status: int) -> None:
    spending.server.add_fault("* .", times=None, status=status, body="<html>")
    carrier = spending.wire("Responses")
    for _ in range(3):
        with pytest.raises(CallFailedError):
            await carrier.observe(RunRef("Responses", "resp_1"))
    assert spending.sent_before == [1, 2]
