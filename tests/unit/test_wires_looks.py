"""Looks and cancels go without the SDK's ways, and must differ from what the SDK would send and take in nothing."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from openairun_devkit.openai import OpenAIStandIn
from openairun_operator.api.reasons import Reason
from openairun_operator.lifecycle.failure import CallFailedError
from openairun_operator.lifecycle.observation import RunRef
from openairun_operator.wires import clients as clients_module
from openairun_operator.wires.build import wire
from openairun_operator.wires.clients import Clients, Credentials

pytestmark = pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")

KEY = "team-key-0123456789"
RUN = {"id": "resp_1", "object": "response", "status": "in_progress", "model": "m"}
REF = RunRef("Responses", "resp_1")


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    made = Clients(5)
    yield made
    await made.close()


Handler = Callable[[web.Request], Any]


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """Starts servers that answer all with one handler; the answer is the address."""
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/v1"

    yield start
    for runner in runners:
        await runner.cleanup()


BEARER = {"organization": "org-1", "project": "proj_1"}
AZURE = {"api_version": "preview", "key_in_header": True}


@pytest.mark.parametrize("more", [{}, BEARER, AZURE])
@pytest.mark.parametrize("ref", [REF, RunRef("Assistants", "run_1", "thread_1"), RunRef("Responses", "a/b?c#d é+:@&")])
@pytest.mark.parametrize("cancels", [False, True])
async def test_it_is_asked_for_as_the_sdk_asks(
    clients: Clients, serve: Callable[..., Any], more: dict[str, Any], ref: RunRef, cancels: bool
) -> None:
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.method, request.raw_path, {k.lower(): v for k, v in request.headers.items()}))
        return web.json_response(RUN)

    credentials = Credentials(await serve(answer), KEY, **more)
    its, sdk = wire(ref.api, clients, credentials), clients.client(credentials)
    await (its.cancel if cancels else its.observe)(ref)
    if ref.api == "Responses":
        await (sdk.responses.cancel if cancels else sdk.responses.retrieve)(ref.id)
    else:
        runs = sdk.beta.threads.runs
        await (runs.cancel if cancels else runs.retrieve)(ref.id, thread_id=ref.thread or "")
    ours, theirs = asked
    assert ours[:2] == theirs[:2]
    # Theirs are of the SDK itself, or of its dealing with what is packed and empty.
    unsent = {name for name in theirs[2] if name.startswith("x-stainless-")} | {"connection"}
    unsent |= set() if cancels else {"content-type"}
    expected = {name: value for name, value in theirs[2].items() if name not in unsent}
    assert ours[2] == expected | {"accept-encoding": "identity"}


@pytest.mark.parametrize("id_", [".", ".."])
async def test_an_id_that_names_another_folder_is_not_asked_for(clients: Clients, id_: str) -> None:
    async with OpenAIStandIn(keys=[KEY]) as server:
        with pytest.raises(CallFailedError):
            await wire("Responses", clients, Credentials(server.url, KEY)).observe(RunRef("Responses", id_))
        assert server.requests() == []


async def test_what_is_packed_all_the_same_is_unpacked(clients: Clients, serve: Callable[..., Any]) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(json.dumps(RUN).encode()), headers={"Content-Encoding": "gzip"})

    seen = await wire("Responses", clients, Credentials(await serve(answer), KEY)).observe(REF)
    assert seen.status == "in_progress"


@pytest.mark.parametrize("packed", [True, False])
async def test_an_answer_without_end_is_not_read(
    clients: Clients, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(clients_module, "MAX_ANSWER", 100_000)
    body = json.dumps(RUN | {"instructions": "x" * 1_000_000}).encode()

    async def answer(request: web.Request) -> web.Response:
        if packed:
            return web.Response(body=gzip.compress(body), headers={"Content-Encoding": "gzip"})
        return web.Response(body=body)

    with pytest.raises(CallFailedError, match="more than") as failed:
        await wire("Responses", clients, Credentials(await serve(answer), KEY)).observe(REF)
    assert failed.value.failure.reason is Reason.UNREADABLE_ANSWER


async def test_a_proxy_of_the_environment_carries_looks_and_cancels_too(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def proxy(request: web.Request) -> web.Response:
        asked.append((request.method, request.raw_path))
        return web.json_response(RUN)

    monkeypatch.setenv("HTTP_PROXY", (await serve(proxy)).removesuffix("/v1"))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    clients = Clients(5)
    try:
        proxied = wire("Responses", clients, Credentials("http://openai.invalid/v1", KEY))
        seen = [await proxied.observe(REF), await proxied.cancel(REF)]
    finally:
        await clients.close()
    assert [each.status for each in seen] == ["in_progress"] * 2
    address = "http://openai.invalid/v1/responses/resp_1"
    assert asked == [("GET", address), ("POST", f"{address}/cancel")]


@pytest.mark.parametrize("status", [200, 429])
async def test_a_header_may_hold_any_character(clients: Clients, serve: Callable[..., Any], status: int) -> None:
    """Gateways name themselves. It must not make a run that exists one of unknown outcome."""

    async def answer(request: web.Request) -> web.StreamResponse:
        body = json.dumps(RUN if status == 200 else {"error": {"message": "slow down"}}).encode()
        transport = request.transport
        assert transport is not None
        head = f"HTTP/1.1 {status} OK\r\nX-Served-By: Zürich\r\nContent-Length: {len(body)}\r\nRetry-After: 7\r\n"
        head += "Connection: close\r\n\r\n"
        transport.write(head.encode("utf-8") + body)
        transport.close()
        return web.StreamResponse()

    carrier = wire("Responses", clients, Credentials(await serve(answer), KEY))
    for call in (carrier.observe, carrier.cancel):
        if status == 200:
            assert (await call(REF)).status == "in_progress"
        else:
            with pytest.raises(CallFailedError) as failed:
                await call(REF)
            assert (failed.value.failure.reason, failed.value.failure.retry_after) == (Reason.RATE_LIMITED, 7)


@pytest.mark.parametrize("host", ["a..b", ".a", "...", "a" * 64 + ".example"])
async def test_a_host_that_can_have_no_address_is_refused_before_anything_is_sent(clients: Clients, host: str) -> None:
    """Else a create to it would be one of unknown outcome."""
    with pytest.raises(ValueError, match="the address is no URL"):
        clients.client(Credentials(f"https://{host}/v1", KEY))
