"""Many credentials at once: each with its own address, key and CA; a bounded number of clients; pools never mixed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import tls
from aiohttp import web

from openairun_devkit.openai import OpenAIStandIn
from openairun_operator.api.reasons import Reason
from openairun_operator.lifecycle.failure import CallFailedError
from openairun_operator.lifecycle.observation import RunRef
from openairun_operator.wires import clients as module
from openairun_operator.wires.build import wire
from openairun_operator.wires.clients import Clients, Credentials

KEY = "team-key-0123456789"
NOWHERE = "http://127.0.0.1:9/v1"
REF = RunRef("Responses", "resp_1")


class Server:
    """Answers every GET with a run that goes, after `hold`; keeps what it was sent."""

    def __init__(self, secure: bool) -> None:
        self.seen: list[web.BaseRequest] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self._secure = secure
        self._runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        self.seen.append(request)
        await self.hold.wait()
        answer = web.json_response({"id": "resp_1", "object": "response", "status": "in_progress"})
        answer.set_cookie("who", "the first")
        return answer

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(
            self._runner, "127.0.0.1", 0, ssl_context=tls.server_context() if self._secure else None
        ).start()

    @property
    def url(self) -> str:
        return f"http{'s' if self._secure else ''}://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    @property
    def connections(self) -> int:
        assert self._runner.server is not None
        return len(self._runner.server.connections)

    async def stop(self) -> None:
        await self._runner.cleanup()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server(secure=False)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def secure() -> AsyncIterator[Server]:
    server = Server(secure=True)
    await server.start()
    yield server
    await server.stop()


async def look(clients: Clients, credentials: Credentials) -> None:
    await wire("Responses", clients, credentials).observe(REF)


async def fails(clients: Clients, credentials: Credentials) -> CallFailedError:
    with pytest.raises(CallFailedError) as raised:
        await look(clients, credentials)
    return raised.value


async def until(done: Any) -> None:
    async with asyncio.timeout(2):
        while not done():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)


# What is sent


async def test_the_key_goes_into_the_header_that_azure_reads_and_into_no_other(
    server: Server, clients: Clients
) -> None:
    await look(clients, Credentials(server.url, KEY, key_in_header=True, api_version="2026-05-01"))
    (request,) = server.seen
    assert request.headers["api-key"] == KEY
    assert "Authorization" not in request.headers
    assert request.query_string == "api-version=2026-05-01"


async def test_else_it_is_a_bearer_token_and_no_version_is_sent(server: Server, clients: Clients) -> None:
    await look(clients, Credentials(server.url, KEY))
    (request,) = server.seen
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert "api-key" not in request.headers
    assert request.query_string == ""


async def test_no_cookie_goes_from_one_tenant_to_the_next(server: Server, clients: Clients) -> None:
    for key in ("key-of-team-a", "key-of-team-b"):
        await look(clients, Credentials(server.url, key))
    assert [request.headers.get("Cookie") for request in server.seen] == [None, None]


async def test_a_namespace_has_its_own_time_for_a_request(server: Server, clients: Clients) -> None:
    server.hold.clear()
    failed = await fails(clients, Credentials(server.url, KEY, timeout=0.1))
    assert failed.failure.reason is Reason.TIMED_OUT
    assert clients.timeout(Credentials(server.url, KEY)) == 5


@pytest.mark.parametrize("timeout", [0.2, 4.0])
async def test_the_time_may_be_longer_than_the_operators_own(server: Server, timeout: float) -> None:
    server.hold.clear()
    clients = Clients(0.1)
    asyncio.get_running_loop().call_later(0.3, server.hold.set)
    try:
        going = look(clients, Credentials(server.url, KEY, timeout=timeout))
        if timeout < 0.3:
            with pytest.raises(CallFailedError):
                await going
        else:
            await going
    finally:
        await clients.close()


# What cannot be sent


@pytest.mark.parametrize("around", ["\n", "\r\n", " ", "\t"])
def test_white_space_around_a_key_is_no_part_of_it(around: str) -> None:
    credentials = Credentials(NOWHERE, around + KEY + around)
    assert credentials == Credentials(NOWHERE, KEY)
    assert KEY not in repr(credentials)
    assert KEY not in str(credentials)


@pytest.mark.parametrize("key", ["", " \n"])
async def test_an_empty_key_is_refused_plainly(clients: Clients, key: str) -> None:
    with pytest.raises(ValueError, match="the key is empty"):
        clients.client(Credentials(NOWHERE, key))


@pytest.mark.parametrize("name", ["organization", "project"])
async def test_a_header_that_cannot_be_sent_is_named(clients: Clients, name: str) -> None:
    with pytest.raises(ValueError, match=f"the {name} holds characters that no HTTP header can carry"):
        clients.client(Credentials(NOWHERE, KEY, **{name: "a\r\nb"}))


@pytest.mark.parametrize("url", ["http://[::1/v1", "http://\0/v1", "http://a:b/v1"])
async def test_an_address_that_is_none_is_refused_plainly(clients: Clients, url: str) -> None:
    with pytest.raises(ValueError, match="the address is no URL"):
        clients.client(Credentials(url, KEY, ca_bundle=tls.CERTIFICATE))
    assert not clients._pools


# Trust


async def test_a_server_is_trusted_by_the_bundle_of_the_credentials_alone(secure: Server, clients: Clients) -> None:
    failed = await fails(clients, Credentials(secure.url, KEY))
    assert failed.failure.reason is Reason.UNREACHABLE
    assert "certificate verify failed" in failed.failure.message
    assert not secure.seen
    await look(clients, Credentials(secure.url, KEY, ca_bundle=tls.CERTIFICATE))
    assert (await fails(clients, Credentials(secure.url, KEY))).failure.reason is Reason.UNREACHABLE
    assert len(secure.seen) == 1


BROKEN = {
    "empty": "",
    "blank": " \n",
    "no PEM": "hello",
    "cut off": tls.CERTIFICATE[:300],
    "a good one and one that is cut off": tls.CERTIFICATE + tls.CERTIFICATE[:300],
    "a good one and one that is changed": tls.CERTIFICATE + tls.CERTIFICATE.replace("MII", "MXX"),
    "a private key": tls._KEY,
    "indented": tls.CERTIFICATE.replace("\n", "\n  "),
    "other characters": tls.CERTIFICATE.replace("MII", "MéI"),
    "null": "a\0b",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_bundle_that_cannot_be_read_is_refused_plainly(clients: Clients, name: str) -> None:
    credentials = Credentials(NOWHERE, KEY, ca_bundle=BROKEN[name])
    with pytest.raises(ValueError, match=r"the CA bundle (is empty|cannot be read: it must be certificates in PEM)"):
        wire("Responses", clients, credentials)
    assert not clients._pools


@pytest.mark.parametrize("bundle", ["# Főtanúsítvány\n" + tls.CERTIFICATE, tls.CERTIFICATE.replace("\n", "\r\n")])
async def test_a_bundle_may_hold_comments_and_the_line_ends_of_windows(
    secure: Server, clients: Clients, bundle: str
) -> None:
    await look(clients, Credentials(secure.url, KEY, ca_bundle=bundle))


async def test_each_trust_has_one_pool(clients: Clients) -> None:
    trusts: list[dict[str, Any]] = [{}, {"ca_bundle": tls.CERTIFICATE}, {"guarded": True}]
    pools = [[clients.client(Credentials(NOWHERE, key, **trust))._client for key in "ab"] for trust in trusts]
    assert all(first is second for first, second in pools)
    assert len({id(first) for first, _ in pools}) == len(trusts)


# A bounded number


async def test_the_client_that_was_not_used_for_longest_goes(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_CLIENTS", 2)
    made = {key: clients.client(Credentials(NOWHERE, key)) for key in "ab"}
    clients.client(Credentials(NOWHERE, "a"))
    clients.client(Credentials(NOWHERE, "c"))
    assert clients.client(Credentials(NOWHERE, "a")) is made["a"]
    assert clients.client(Credentials(NOWHERE, "b")) is not made["b"]
    assert len(clients._made) == 2
    assert not made["b"].is_closed()


async def test_a_wire_whose_client_has_gone_still_works(
    server: Server, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_CLIENTS", 1)
    carrier = wire("Responses", clients, Credentials(server.url, KEY))
    clients.client(Credentials(NOWHERE, "another"))
    await carrier.observe(REF)


async def test_the_pool_of_a_bundle_closes_with_its_last_credentials(secure: Server, clients: Clients) -> None:
    first, second = (Credentials(secure.url, key, ca_bundle=tls.CERTIFICATE) for key in ("key-a", "key-b"))
    for credentials in (first, second):
        await look(clients, credentials)
    clients.forget(first)
    await asyncio.sleep(0.05)
    assert secure.connections == 1
    clients.forget(second)
    await until(lambda: not secure.connections)
    assert not clients._pools


async def test_a_pool_in_use_closes_when_the_request_has_its_answer(secure: Server, clients: Clients) -> None:
    credentials = Credentials(secure.url, KEY, ca_bundle=tls.CERTIFICATE)
    carrier = wire("Responses", clients, credentials)
    secure.hold.clear()
    going = asyncio.create_task(carrier.observe(REF))
    await until(lambda: secure.seen)
    clients.forget(credentials)
    await asyncio.sleep(0.05)
    assert secure.connections == 1
    secure.hold.set()
    assert (await going).status == "in_progress"
    await until(lambda: not secure.connections)
    assert (await carrier.observe(REF)).status == "in_progress"  # such as the next page of a search
    await until(lambda: not secure.connections)


async def test_forgetting_twice_or_what_never_was_is_no_error(clients: Clients) -> None:
    credentials = Credentials(NOWHERE, KEY, ca_bundle=tls.CERTIFICATE)
    clients.client(credentials)
    for _ in range(3):
        clients.forget(credentials)
    clients.forget(Credentials(NOWHERE, "another"))
    assert clients.client(credentials)


async def test_nothing_stays_open_at_the_end(secure: Server, recwarn: pytest.WarningsRecorder) -> None:
    clients = Clients(5)
    for bundle in (tls.CERTIFICATE, "# the same, renewed\n" + tls.CERTIFICATE):
        await look(clients, Credentials(secure.url, KEY, ca_bundle=bundle))
    clients.forget(Credentials(secure.url, KEY, ca_bundle=tls.CERTIFICATE))
    await clients.close()
    await until(lambda: not secure.connections)
    assert not [warning for warning in recwarn if "Unclosed" in str(warning.message)]


async def test_a_thousand_credentials_are_not_all_kept(clients: Clients) -> None:
    for number in range(1000):
        clients.client(Credentials(f"http://server-{number}.test/v1", KEY))
    assert len(clients._made) == module._MAX_CLIENTS
    assert len(clients._pools) == 1


async def test_the_stand_in_takes_the_key_either_way(clients: Clients) -> None:
    async with OpenAIStandIn(keys=[KEY]) as standin:
        for in_header in (False, True):
            failed = await fails(clients, Credentials(standin.url, KEY, key_in_header=in_header, api_version="v1"))
            assert failed.failure.reason is Reason.NOT_FOUND
            failed = await fails(clients, Credentials(standin.url, "sk-wrong", key_in_header=in_header))
            assert failed.failure.reason is Reason.INVALID_CREDENTIALS
