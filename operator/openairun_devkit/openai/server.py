"""The HTTP side of the stand-in: keys, faults, both wires under ``/v1``, the control API under ``/_standin``.

The control API, which needs no key:

========  ============================  =============================================================
GET       /_standin/requests            what was asked (``RecordedRequest``); ``?method=&path=`` filter
DELETE    /_standin/requests            forget it
GET       /_standin/wait                ``?method=&path=REGEX&count=N&timeout=S``: the matching requests as soon as
                                        there are N; 408 after S seconds (10)
GET       /_standin/runs                every run (``RunSummary``)
GET       /_standin/submits             the tool results that were brought and taken (``Submit``), oldest first
POST      /_standin/runs/ID             ``{"script": …}``: from now on the run follows this script
GET       /_standin/faults              every fault, with ``matched`` and ``waiting``
POST      /_standin/faults              ``{"match": …, …}`` (the fields of ``Fault``) → ``{"id": …}``
DELETE    /_standin/faults              forget all, let go what they hold
POST      /_standin/release             ``{"id"?: …}``: let go what one fault, or any, holds now
POST      /_standin/keys                ``{"keys": […]}``: the keys that are accepted from now on
========  ============================  =============================================================
"""

import asyncio
import contextlib
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from openairun_devkit.openai import scripts
from openairun_devkit.openai.asking import ANSWERS, Submit
from openairun_devkit.openai.assistants import Assistants
from openairun_devkit.openai.errors import APIError, usual_body, wrong_key
from openairun_devkit.openai.faults import Fault, Faults
from openairun_devkit.openai.recorder import Pattern, RecordedRequest, Recorder
from openairun_devkit.openai.responses import Responses
from openairun_devkit.openai.runs import Run, Wire

HOST = "127.0.0.1"

MODELS = ("gpt-standin", "gpt-standin-mini")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run as the stand-in sees it."""

    id: str
    wire: Wire
    thread: str | None
    """The thread, or on the responses wire the conversation."""
    status: str
    """Now, in the script's words (``requires_action`` on both wires; ``gone``)."""
    metadata: dict[str, str]
    created_at: float
    cancel_calls: int
    polls: int
    """How often it was read by its id."""


class OpenAIStandIn:
    """The stand-in as a server on a loopback port; ``async with`` starts and stops it.

    `script` is for runs that name none in their metadata. `clock` gives epoch seconds, and scripts follow it alone;
    delays and time-outs take real time. The attributes `keys` and `assistants` may be changed while it serves.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        keys: Iterable[str] = ("sk-standin",),
        script: str = "complete",
        assistants: bool = True,
        strict_threads: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        scripts.parse(script)
        self.keys = set(keys)
        self.assistants = assistants
        self.port = port
        self._clock = clock
        self._responses = Responses(default_script=script, strict=strict_threads)
        self._assistants = Assistants(default_script=script, strict=strict_threads)
        self._recorder = Recorder()
        self._faults = Faults()
        self._runner: web.ServerRunner | None = None
        self._waiting: set[asyncio.Task[Any]] = set()

    # Serving

    @property
    def url(self) -> str:
        """The base URL to give to a client: ``http://127.0.0.1:PORT/v1``."""
        return f"http://{HOST}:{self.port}/v1"

    @property
    def control_url(self) -> str:
        return f"http://{HOST}:{self.port}/_standin"

    async def start(self) -> None:
        """Listen. With port 0, `port` is the chosen one afterwards."""
        runner = web.ServerRunner(web.Server(self._serve, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, self.port, backlog=1024).start()
        except OSError:
            await runner.cleanup()
            raise
        self.port = runner.addresses[0][1]
        self._runner = runner

    async def stop(self) -> None:
        """Drop every connection, held ones too, and stop listening."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for task in self._waiting:
            task.cancel()
        await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # Control, in process

    def requests(self, method: str | None = None, path: str = "") -> list[RecordedRequest]:
        """The requests so far, oldest first; `path` is a regular expression, searched."""
        return self._recorder.find(Pattern(method, path))

    def clear_requests(self) -> None:
        self._recorder.clear()

    async def wait_for(
        self, method: str | None = None, path: str = "", *, count: int = 1, timeout: float = 10.0
    ) -> list[RecordedRequest]:
        """The matching requests as soon as there are `count`, earlier ones included; else TimeoutError."""
        return await self._recorder.wait_for(Pattern(method, path), count, timeout)

    def runs(self) -> list[RunSummary]:
        """Every run, oldest first."""
        now = self._clock()
        runs = sorted((*self._responses.runs.values(), *self._assistants.runs.values()), key=lambda run: run.created_at)
        return [_summary(run, now) for run in runs]

    def submits(self) -> list[Submit]:
        """The tool results that were brought and taken, oldest first."""
        return sorted((*self._responses.submits, *self._assistants.submits), key=lambda submit: submit.at)

    def play(self, run_id: str, script: str) -> None:
        """From now on the run follows this script, whatever it did before. KeyError where there is none."""
        run = self._responses.runs.get(run_id) or self._assistants.runs[run_id]
        run.script = scripts.parse(script)
        now = self._clock()
        run.go_on(now, run.script.stages(now))

    def add_fault(self, match: str, **what: Any) -> Fault:
        """Tell of a fault; `what` are the fields of `Fault`."""
        return self._faults.add(match, **what)

    def faults(self) -> list[Fault]:
        return self._faults.all()

    def release(self, fault_id: str | None = None) -> None:
        """Let go what the fault holds now; what any holds, without an id."""
        self._faults.release(fault_id)

    def clear_faults(self) -> None:
        """Forget the faults and let go what they hold."""
        self._faults.clear()

    # HTTP

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        # Not request.read(), which refuses more than 1 MiB.
        sent = await request.content.read() if request.body_exists else b""
        if request.path.startswith("/_standin"):
            with _member(self._waiting, task):
                return await self._control(request, sent)
        body = None
        if sent:
            with contextlib.suppress(ValueError):
                body = json.loads(sent)
        method, path = request.method, request.path
        # No await from here to the hold: who waited for the request's arrival finds it held.
        record = self._recorder.record(
            at=self._clock(), method=method, path=path, query=request.query_string, headers=request.headers, body=body
        )
        fault = self._faults.take(method, path, submits=_submits(body))
        if fault is None:
            answer = self._answer(request, body)
        else:
            with _member(self._waiting, task):
                faulty = await self._answer_with(fault, request, body)
            if faulty is None:
                return _drop(request)
            answer = faulty
        record.status = answer.status
        return answer

    async def _answer_with(self, fault: Fault, request: web.BaseRequest, body: Any) -> web.Response | None:
        """The answer that the fault makes of this request; None: drop the connection."""
        if fault.hold == "before":
            await fault.wait_here()
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.close == "before":
            return None
        answer = None
        if fault.process or not fault.answers:
            answer = self._answer(request, body)
        if answer is None or fault.answers:
            status = fault.status or 200
            told = usual_body(status) if fault.body is None else fault.body
            answer = _respond(status, told.encode() if isinstance(told, str) else told)
        if fault.hold == "after":
            await fault.wait_here()
        if fault.close == "after":
            return None
        if fault.content_type is not None:
            answer.headers["Content-Type"] = fault.content_type
        if fault.reason is not None:
            answer.set_status(answer.status, fault.reason)
        answer.headers.update(fault.headers)
        return answer

    def _answer(self, request: web.BaseRequest, body: Any) -> web.Response:
        """What OpenAI would answer."""
        try:
            in_header = request.headers.get("api-key")  # as Azure takes it
            self._check_key(f"Bearer {in_header}" if in_header else request.headers.get("authorization"))
            return _respond(200, self._act(request.method, request.path, request.query, body))
        except APIError as error:
            return _respond(error.status, error.body)
        except (AttributeError, KeyError, TypeError) as error:
            if request.method != "POST":
                raise
            refusal = APIError(400, f"Stand-in: a value of another type was expected: {error!r}", code="invalid_type")
            return _respond(refusal.status, refusal.body)

    def _check_key(self, authorization: str | None) -> None:
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or key not in self.keys:
            raise wrong_key(authorization)

    def _act(self, method: str, path: str, query: Mapping[str, str], body: Any) -> bytes | dict[str, Any]:
        """Do what the request asks; a body in JSON, or APIError."""
        now, responses, assistants = self._clock(), self._responses, self._assistants
        match (method, *path.split("/")[1:]):
            case ("GET", "v1", "responses", id):
                return responses.retrieve(id, now)
            case ("POST", "v1", "responses"):
                return responses.create(body, now)
            case ("POST", "v1", "responses", id, "cancel"):
                return responses.cancel(id, now)
            case ("GET", "v1", "models"):
                return _MODELS
            case ("GET", "v1", "assistants") if self.assistants:
                return {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
            case ("GET", "v1", "threads", thread, "runs", id) if self.assistants:
                return assistants.retrieve(thread, id, now)
            case ("GET", "v1", "threads", thread, "runs") if self.assistants:
                return assistants.list_runs(thread, query, now)
            case ("POST", "v1", "threads", thread, "runs") if self.assistants:
                return assistants.create(thread, body, now)
            case ("POST", "v1", "threads", thread, "runs", id, "cancel") if self.assistants:
                return assistants.cancel(thread, id, now)
            case ("POST", "v1", "threads", thread, "runs", id, "submit_tool_outputs") if self.assistants:
                return assistants.submit_tool_outputs(thread, id, body, now)
            case ("GET", "v1", "threads", thread, "runs", id, "steps") if self.assistants:
                return assistants.steps(thread, id, query, now)
            case ("GET", "v1", "threads", thread, "messages") if self.assistants:
                return assistants.messages(thread, query, now)
        raise APIError(404, f"Invalid URL ({method} {path})")

    async def _control(self, request: web.BaseRequest, sent: bytes) -> web.Response:
        """Answer a request to the control API; what makes no sense is a 400 that says why."""
        query = request.query
        try:
            body = json.loads(sent or b"{}")
            match (request.method, request.path.removeprefix("/_standin/").rstrip("/").split("/")):
                case ("GET", ["requests"]):
                    found = self.requests(query.get("method"), query.get("path", ""))
                    return _respond(200, [asdict(each) for each in found])
                case ("DELETE", ["requests"]):
                    self.clear_requests()
                case ("GET", ["wait"]):
                    found = await self.wait_for(
                        query.get("method"),
                        query.get("path", ""),
                        count=int(query.get("count", "1")),
                        timeout=float(query.get("timeout", "10")),
                    )
                    return _respond(200, [asdict(each) for each in found])
                case ("GET", ["runs"]):
                    return _respond(200, [asdict(each) for each in self.runs()])
                case ("GET", ["submits"]):
                    return _respond(200, [asdict(each) for each in self.submits()])
                case ("POST", ["runs", id]):
                    self.play(id, body["script"])
                case ("GET", ["faults"]):
                    return _respond(200, [fault.as_json() for fault in self.faults()])
                case ("POST", ["faults"]):
                    return _respond(200, {"id": self.add_fault(**body).id})
                case ("DELETE", ["faults"]):
                    self.clear_faults()
                case ("POST", ["release"]):
                    self.release(body.get("id"))
                case ("POST", ["keys"]):
                    self.keys = set(body["keys"])
                case _:
                    return _respond(404, {"error": f"no {request.method} {request.path} here"})
        except TimeoutError:
            return _respond(408, {"error": "not so many requests in time"})
        except (ValueError, TypeError, KeyError, re.error) as error:
            return _respond(400, {"error": f"{type(error).__name__}: {error}"})
        return _respond(200, {})


_MODELS = json.dumps(
    {
        "object": "list",
        "data": [{"id": id, "object": "model", "created": 1767225600, "owned_by": "standin"} for id in MODELS],
    }
).encode()


def _summary(run: Run, now: float) -> RunSummary:
    return RunSummary(
        run.id, run.wire, run.thread, run.state(now), run.metadata, run.created_at, run.cancel_calls, run.polls
    )


def _submits(body: Any) -> bool:
    """Whether the body brings tool results, readable or not."""
    if not isinstance(body, dict):
        return False
    given = body.get("input")
    items = given if isinstance(given, list) else []
    return "tool_outputs" in body or any(isinstance(item, dict) and item.get("type") in ANSWERS for item in items)


def _respond(status: int, body: Any) -> web.Response:
    """An answer with its own x-request-id; `body` is sent as it is if it is bytes, else as JSON."""
    return web.Response(
        status=status,
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "x-request-id": f"req_{secrets.token_hex(16)}"},
    )


def _drop(request: web.BaseRequest) -> web.Response:
    """Close the connection; the answer returned is never sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


@contextlib.contextmanager
def _member(tasks: set[asyncio.Task[Any]], task: asyncio.Task[Any]) -> Iterator[None]:
    """Count the task among those that stop() must end."""
    tasks.add(task)
    try:
        yield
    finally:
        tasks.discard(task)
