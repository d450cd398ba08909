"""The operator's own token in exchange for that of its ServiceAccount: a stand-in for OpenAI's token endpoint."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from builders import RESPONSES, body

from openairun_devkit.openai import OpenAIStandIn
from openairun_operator import assembly
from openairun_operator.api.reasons import Reason
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.config import Settings
from openairun_operator.kube import credentials
from openairun_operator.kube.credentials import ExchangedKey, OperatorKey
from openairun_operator.lifecycle.failure import CallFailedError, Failure, Outcome
from openairun_operator.lifecycle.observation import CreateRequest
from openairun_operator.lifecycle.provider import OWN
from openairun_operator.lifecycle.run import parse
from openairun_operator.providers import Own, Providers
from openairun_operator.wires import identity
from openairun_operator.wires.clients import Clients

SUBJECT = "eyJhbGciOiJSUzI1NiJ9.subject-0123456789.signature"
TOKEN = "ey-access-0123456789"
GIVEN = {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}


class Endpoint:
    """Gives `answer`, with `status`, after `pause` seconds."""

    def __init__(self) -> None:
        self.answer: Any = GIVEN
        self.status = 200
        self.pause = 0.0
        self.seen: list[tuple[dict[str, str], Any]] = []
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.1)

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        self.seen.append((dict(request.headers), await request.json()))
        self.query = request.rel_url.query_string
        await asyncio.sleep(self.pause)
        if isinstance(self.answer, str):
            return web.Response(status=self.status, text=self.answer)
        return web.json_response(self.answer, status=self.status)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/oauth/token"

    async def stop(self) -> None:
        await self._runner.cleanup()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    await endpoint.start()
    yield endpoint
    await endpoint.stop()


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    clients = Clients(0.5)
    yield clients
    await clients.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{SUBJECT}\n")
    return file


async def exchanged(clients: Clients, file: Path, url: str) -> tuple[str, float]:
    return await identity.exchange(clients, "idp_1", "svcacct_1", file, url)


async def refusal(clients: Clients, file: Path, url: str) -> Failure:
    with pytest.raises(CallFailedError) as raised:
        await exchanged(clients, file, url)
    return raised.value.failure


async def test_the_accounts_token_goes_into_the_body_alone(clients: Clients, file: Path, endpoint: Endpoint) -> None:
    assert await exchanged(clients, file, endpoint.url) == (TOKEN, 3600)
    ((headers, sent),) = endpoint.seen
    assert sent == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": SUBJECT,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "identity_provider_id": "idp_1",
        "service_account_id": "svcacct_1",
    }
    assert "Authorization" not in headers
    assert SUBJECT not in str(headers)


async def test_nothing_is_taken_from_the_environment(
    clients: Clients, file: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-poison")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer sk-poison")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-poison")
    await exchanged(clients, file, endpoint.url)
    assert "poison" not in str(endpoint.seen)


OAUTH = {"error": "invalid_grant", "error_description": f"no such subject: {SUBJECT}"}


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (400, OAUTH, Reason.INVALID_CREDENTIALS),
        (401, OAUTH, Reason.INVALID_CREDENTIALS),
        (403, {"error": "access_denied"}, Reason.INVALID_CREDENTIALS),
        (422, "<html>", Reason.INVALID_CREDENTIALS),
        (404, {"error": {"message": f"No run {SUBJECT}"}}, Reason.INVALID_CREDENTIALS),
        (409, {"error": {"message": "conversation_locked"}}, Reason.INVALID_CREDENTIALS),
        (429, {"error": "slow_down"}, Reason.RATE_LIMITED),
        (500, SUBJECT, Reason.SERVER_ERROR),
        (503, OAUTH, Reason.SERVER_ERROR),
        (200, "<html>", Reason.UNREADABLE_ANSWER),
        (200, {"access_token": TOKEN}, Reason.UNREADABLE_ANSWER),
        (200, {"access_token": TOKEN, "expires_in": 0}, Reason.UNREADABLE_ANSWER),
        (200, {"access_token": TOKEN, "expires_in": "3600"}, Reason.UNREADABLE_ANSWER),
        (200, {"access_token": "", "expires_in": 3600}, Reason.UNREADABLE_ANSWER),
    ],
)
async def test_a_refusal_creates_nothing_loses_nothing_and_shows_no_token(
    clients: Clients, file: Path, endpoint: Endpoint, status: int, answer: Any, reason: Reason
) -> None:
    endpoint.status, endpoint.answer = status, answer
    failure = await refusal(clients, file, endpoint.url)
    assert (failure.reason, failure.outcome) == (reason, Outcome.NOT_CREATED)
    assert SUBJECT not in failure.message
    assert "subject-0123456789" not in failure.message
    if answer == OAUTH and reason is Reason.INVALID_CREDENTIALS:
        assert f"{status} invalid_grant: no such subject" in failure.message
        assert "--workload-identity" in failure.message
    assert len(endpoint.seen) == 1


async def test_an_endpoint_that_does_not_answer_holds_nobody_up(
    clients: Clients, file: Path, endpoint: Endpoint
) -> None:
    endpoint.pause = 5
    started, task = time.monotonic(), asyncio.create_task(refusal(clients, file, endpoint.url))
    turns = 0
    while not task.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert time.monotonic() - started < 2
    assert turns > 20
    assert (task.result().reason, task.result().outcome) == (Reason.TIMED_OUT, Outcome.NOT_CREATED)


async def test_an_endpoint_that_is_away_is_unreachable(clients: Clients, file: Path) -> None:
    failure = await refusal(clients, file, "http://127.0.0.1:9/oauth/token")
    assert (failure.reason, failure.outcome) == (Reason.UNREACHABLE, Outcome.NOT_CREATED)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda file: file.write_text("\n"), lambda f: f.write_bytes(b"\xff")])
async def test_without_a_token_of_its_own_the_operator_has_no_credentials(
    clients: Clients, file: Path, endpoint: Endpoint, spoil: Callable[[Path], Any]
) -> None:
    spoil(file)
    failure = await refusal(clients, file, endpoint.url)
    assert failure.reason is Reason.NO_CREDENTIALS
    assert str(file) in failure.message
    assert endpoint.seen == []


@pytest.mark.parametrize("spoil", [lambda file: file.write_text("ey-ключ-0123456789")])
async def test_what_no_header_can_carry_is_no_token(
    clients: Clients, file: Path, endpoint: Endpoint, spoil: Callable[[Path], Any]
) -> None:
    spoil(file)
    failure = await refusal(clients, file, endpoint.url)
    assert failure.reason is Reason.INVALID_CREDENTIALS
    assert "ключ" not in failure.message


# The key that comes of it


class Exchanges:
    """Gives what is put in, one after the other; the last again and again."""

    def __init__(self, *results: tuple[str, float] | Failure) -> None:
        self.results = list(results)
        self.count = 0

    async def __call__(self) -> tuple[str, float]:
        self.count += 1
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(result, Failure):
            raise CallFailedError(result)
        return result


REFUSED = Failure(reason=Reason.INVALID_CREDENTIALS, message="refused")
AWAY = Failure(reason=Reason.UNREACHABLE, message="away")


class Watched:
    """An exchanged key that is watched until the test ends."""

    def __init__(self, *results: tuple[str, float] | Failure) -> None:
        self.exchanges = Exchanges(*results)
        self.key = ExchangedKey(self.exchanges, "idp_1/svcacct_1")
        self.changes = 0

    def changed(self) -> None:
        self.changes += 1

    async def until(self, count: int) -> None:
        """Until there were so many exchanges, and what came of them is taken in."""
        async with asyncio.timeout(2):
            while self.exchanges.count < count:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)


@pytest.fixture
async def watch(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Watched]]:
    """Watch keys whose pauses between tries take no time."""
    monkeypatch.setattr(credentials, "_LOOK", 0.0)
    monkeypatch.setattr(credentials, "_LONGEST_PAUSE", 0.0)
    tasks = []

    def watch(*results: tuple[str, float] | Failure) -> Watched:
        watched = Watched(*results)
        tasks.append(asyncio.create_task(watched.key.watch(watched.changed)))
        return watched

    yield watch
    for task in tasks:
        assert not task.done()
        task.cancel()


async def test_the_first_token_is_waited_for(watch: Callable[..., Watched]) -> None:
    watched = watch((TOKEN, 3600))
    assert watched.key.current is None
    await asyncio.wait_for(watched.key.looked(), 1)
    assert (watched.key.current, watched.key.last) == (TOKEN, TOKEN)


async def test_an_endpoint_that_is_away_is_not_waited_for(watch: Callable[..., Watched]) -> None:
    watched = watch(AWAY)
    await asyncio.wait_for(watched.key.looked(), 1)
    assert watched.key.current is None
    assert watched.key.trouble == AWAY


async def test_a_token_is_renewed_at_half_of_a_short_life(watch: Callable[..., Watched]) -> None:
    watched = watch((TOKEN, 0.2), ("ey-next-0123456789", 3600))
    before = watched.key.mark
    started = time.monotonic()
    await watched.until(2)
    assert time.monotonic() - started < 0.2
    assert watched.key.current == "ey-next-0123456789"
    assert watched.changes == 2
    assert watched.key.mark == before, "it is the same identity: a run that is not found is lost"


async def test_a_token_that_cannot_be_renewed_is_used_to_its_end(watch: Callable[..., Watched]) -> None:
    watched = watch((TOKEN, 0.3), AWAY)
    await watched.until(3)
    assert watched.key.current == TOKEN
    await asyncio.sleep(0.3)
    assert watched.key.current is None
    assert watched.key.trouble == AWAY
    assert watched.key.last == TOKEN  # for runs that are cancelled


async def test_what_is_wrong_is_told_once(watch: Callable[..., Watched], caplog: pytest.LogCaptureFixture) -> None:
    watched = watch(AWAY, AWAY, REFUSED, REFUSED, (TOKEN, 3600))
    await watched.until(5)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == ["away", "refused"]
    assert watched.changes == 3
    assert TOKEN not in caplog.text


async def test_a_token_that_is_refused_is_renewed_unless_it_is_new(
    watch: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = watch((TOKEN, 3600))
    await watched.until(1)
    watched.key.refused()
    await asyncio.sleep(0.05)
    assert watched.exchanges.count == 1
    monkeypatch.setattr(credentials, "PERSON_RETRY", 0.01)
    watched.key.refused()
    await watched.until(2)


# All of it


def providers(settings: Settings, key: credentials.OwnKey, clients: Clients) -> Providers:
    cluster: Any = None
    return Providers(Own(settings, key), clients, cluster)


async def test_runs_go_with_the_token_and_a_create_is_sent_once_though_it_is_refused(
    clients: Clients, file: Path, endpoint: Endpoint
) -> None:
    key = ExchangedKey(lambda: exchanged(clients, file, endpoint.url), "idp_1/svcacct_1")
    run = parse(body(spec=RESPONSES))
    request = CreateRequest(OpenAIRunSpec.model_validate(RESPONSES))
    async with OpenAIStandIn(keys=[TOKEN]) as server:
        ours = providers(Settings(holder="", base_url=server.url), key, clients)
        assert ours.wanted(run).blocked == key.trouble
        watching = asyncio.create_task(key.watch(lambda: None))
        try:
            await asyncio.wait_for(key.looked(), 1)
            assert ours.wanted(run).blocked is None
            await ours.wire(run.namespace, OWN, "Responses", ending=False).create(request)
            endpoint.answer = GIVEN | {"access_token": "ey-another-0123456789"}
            key._due = 0
            key._wake.set()
            async with asyncio.timeout(1):
                while key.current == TOKEN:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.001)
            with pytest.raises(CallFailedError) as raised:
                await ours.wire(run.namespace, OWN, "Responses", ending=False).create(request)
        finally:
            watching.cancel()
        assert raised.value.failure.reason is Reason.INVALID_CREDENTIALS
        sent = [each.authorization for each in server.requests("POST", "/responses$")]
    assert sent == [f"Bearer {TOKEN}", "Bearer ey-another-0123456789"]
    assert len(clients._made) == 1, "the client of the token before is kept no longer"


async def test_settings_choose_the_source_of_the_key(
    clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    async def exchange(*arguments: Any) -> tuple[str, float]:
        asked.append(arguments)
        return TOKEN, 3600

    monkeypatch.setattr(identity, "exchange", exchange)
    settings = Settings(holder="", workload_identity=("idp_1", "svcacct_1"), workload_token_file=tmp_path / "token")
    key = assembly._own_key(settings, clients)
    watching = asyncio.create_task(key.watch(lambda: None))
    await asyncio.wait_for(key.looked(), 1)
    watching.cancel()
    assert key.current == TOKEN
    assert asked == [(clients, "idp_1", "svcacct_1", tmp_path / "token")]
    assert isinstance(assembly._own_key(Settings(holder="", api_key="sk-one"), clients), OperatorKey)


@pytest.mark.parametrize(
    ("authentication", "header"),
    [("APIKey", ("api-key", SUBJECT)), ("BearerToken", ("Authorization", f"Bearer {SUBJECT}"))],
)
async def test_azure_gets_the_key_as_it_wants_it(
    clients: Clients, endpoint: Endpoint, authentication: Any, header: tuple[str, str], file: Path
) -> None:
    settings = Settings(
        holder="",
        base_url=endpoint.url,
        api_key_file=file,
        azure_api_version="v1",
        azure_authentication=authentication,
    )
    ours = providers(settings, assembly._own_key(settings, clients), clients)
    endpoint.answer = {"id": "resp_1", "status": "queued"}
    wire = ours.wire(parse(body(spec=RESPONSES)).namespace, OWN, "Responses", ending=False)
    await wire.create(CreateRequest(OpenAIRunSpec.model_validate(RESPONSES)))
    ((headers, _),) = endpoint.seen
    assert {name: headers[name] for name in ("api-key", "Authorization") if name in headers} == dict([header])
    assert endpoint.query == "api-version=v1"


def test_a_token_that_somebody_renews_is_the_same_credential(tmp_path: Path) -> None:
    file = tmp_path / "key"
    marks = []
    for token in (TOKEN, "ey-another-0123456789"):
        file.write_text(token)
        marks.append(OperatorKey(file, None, passing=True).mark)
    assert marks[0] == marks[1] is not None
    file.unlink()
    assert OperatorKey(file, None, passing=True).mark is None
