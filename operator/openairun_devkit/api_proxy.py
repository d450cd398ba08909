"""A reverse proxy in front of the API server, or of OpenAI, with faults: plain HTTP in, HTTP or HTTPS out.

It passes the Authorization header through, so the client stays who it is. It is for clients that
send their token over plain HTTP; the operator does, kubectl does not.
"""

from __future__ import annotations

import asyncio
import http
import re
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self, TypeVar

import aiohttp
import multidict
import yarl
from aiohttp import web

from openairun_devkit.kubectl import read_cluster, write_kubeconfig

T = TypeVar("T")

# RFC 9110, section 7.6.1: these belong to one connection, not to the message.
_HOP_BY_HOP = {
    "connection",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}

# metav1.StatusReason where it is not the HTTP phrase without its blanks.
_REASONS = {
    400: "BadRequest",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    504: "Timeout",
}


@dataclass
class ProxiedRequest:
    """A request as it came in. `status` is 0 until an answer began, and stays 0 if there was none."""

    method: str
    path: str
    query: dict[str, str]
    content_type: str = ""
    body: bytes = b""
    status: int = 0
    mark: object = None
    """An observer's own."""

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch", "").lower() in ("1", "true")


Moment = Literal["before", "after", "answered"]
"""Before the server sees a request; after the server answered; when its client has the whole answer."""


class Observer(Protocol):
    """Sees every request at every moment, on the proxy's own loop, and holds it for as long as it likes."""

    async def passes(self, request: ProxiedRequest, moment: Moment) -> None: ...


@dataclass
class _Match:
    method: str
    path: re.Pattern[str]

    def matches(self, request: ProxiedRequest) -> bool:
        return self.method in ("*", request.method) and self.path.search(request.path) is not None


@dataclass
class _Failure(_Match):
    times: int | None
    status: int | None = None
    cut: Literal["before", "after"] | None = None


@dataclass
class _Holding(_Match):
    when: Literal["before", "after"]
    held: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)
    released: asyncio.Event = field(default_factory=asyncio.Event)


class Hold:
    """Requests that a proxy holds back until they are released."""

    def __init__(self, proxy: ApiProxy, holding: _Holding) -> None:
        self._proxy = proxy
        self._holding = holding

    def wait_held(self, count: int = 1, timeout: float = 10) -> None:
        """Wait until `count` requests have been held; `timeout` in seconds."""
        holding = self._holding
        with holding.changed:
            if not holding.changed.wait_for(lambda: holding.held >= count, timeout):
                raise AssertionError(
                    f"{holding.held} of {count} requests {holding.method} {holding.path.pattern} "
                    f"were held within {timeout:g} s"
                )

    def release(self) -> None:
        """Let go what is held, and hold nothing more."""
        self._proxy._end_hold(self._holding)


class ApiProxy:
    """`with ApiProxy.of_cluster(kubeconfig) as proxy:` serves on `proxy.url`, from a thread of its own.

    `authority` is the CA that signed the server's certificate, as PEM; no credentials of ours are used.
    Paths are matched with `re.search` on the path without its query, methods by name or `*`.
    All methods may be called from any thread but the proxy's own.
    """

    def __init__(self, upstream: str, authority: bytes | None = None, observer: Observer | None = None) -> None:
        self._upstream = upstream.rstrip("/")
        self._observer = observer
        self._tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="api-proxy", daemon=True)
        self._requests: list[ProxiedRequest] = []
        self._failures: list[_Failure] = []
        self._holdings: list[_Holding] = []
        self._watches_flow = asyncio.Event()
        self._watches_flow.set()
        self._watching: list[web.Request] = []
        self.url = ""

    @classmethod
    def of_cluster(cls, kubeconfig: Path, observer: Observer | None = None) -> Self:
        """In front of the API server of the kubeconfig's current context."""
        return cls(*read_cluster(kubeconfig), observer)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        finally:
            self._end()

    def write_kubeconfig(self, path: Path, token: str, namespace: str = "default") -> Path:
        """Write a kubeconfig that points at this proxy, for whoever the token belongs to."""
        return write_kubeconfig(path, server=self.url, token=token, namespace=namespace)

    # What has been asked

    @property
    def requests(self) -> list[ProxiedRequest]:
        """All requests so far, in the order in which they came."""
        return self._on_loop(lambda: list(self._requests))

    def count(self, method: str, path_regex: str) -> int:
        """How many requests there were, answered or not."""
        match = _Match(method, re.compile(path_regex))
        return sum(match.matches(request) for request in self.requests)

    def forget_requests(self) -> None:
        self._on_loop(self._requests.clear)

    # Faults

    def stall_watches(self, stalled: bool) -> None:
        """Hold back what watches bring, running and new ones; False delivers all of it, in order."""
        self._on_loop(self._watches_flow.clear if stalled else self._watches_flow.set)

    def fail(self, method: str, path_regex: str, status: int, times: int | None = 1) -> None:
        """Answer the next `times` matching requests with a Status of that code; None: until `heal`."""
        failure = _Failure(method, re.compile(path_regex), times, status=http.HTTPStatus(status))
        self._on_loop(lambda: self._failures.append(failure))

    def cut(
        self, method: str, path_regex: str, when: Literal["before", "after"] = "before", times: int | None = 1
    ) -> None:
        """Drop the connection of the next `times` matching requests, before the server sees them or after it did."""
        failure = _Failure(method, re.compile(path_regex), times, cut=when)
        self._on_loop(lambda: self._failures.append(failure))

    def cut_watches(self) -> None:
        """Drop the connection of every watch that runs."""
        self._on_loop(lambda: [_drop(request) for request in self._watching])

    def hold(self, method: str, path_regex: str, when: Literal["before", "after"] = "before") -> Hold:
        """Hold matching requests before the API server sees them, or after it answered.

        A held request whose client goes away never reaches the API server if held before.
        """

        def begin() -> _Holding:
            holding = _Holding(method, re.compile(path_regex), when)
            self._holdings.append(holding)
            return holding

        return Hold(self, self._on_loop(begin))

    def heal(self) -> None:
        """End all faults: watches flow, nothing fails, and what is held goes on."""

        def end() -> None:
            self._watches_flow.set()
            self._failures.clear()
            for holding in self._holdings:
                holding.released.set()
            self._holdings.clear()

        self._on_loop(end)

    def _end_hold(self, holding: _Holding) -> None:
        def end() -> None:
            holding.released.set()
            if holding in self._holdings:
                self._holdings.remove(holding)

        self._on_loop(end)

    def _on_loop(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    # On the proxy's own loop

    async def _start(self) -> str:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            auto_decompress=False,
            # What the client did not send must not be added.
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        application = web.Application(client_max_size=16 * 2**20)
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            # When a client goes away, its watch at the API server has to end too.
            handler_cancellation=True,
            shutdown_timeout=0.1,  # seconds; watches never end by themselves
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self, incoming: web.Request) -> web.StreamResponse:
        request = ProxiedRequest(
            method=incoming.method,
            path=incoming.path,
            query=dict(incoming.query),
            content_type=incoming.content_type if incoming.can_read_body else "",
            body=await incoming.read(),
        )
        self._requests.append(request)
        await self._held(request, "before")
        failure = self._failure(request)
        if failure is not None and failure.status is not None:
            request.status = failure.status
            await self._held(request, "after")
            return await self._send(incoming, request, _status_response(failure.status))
        if failure is not None and failure.cut == "before":
            return _drop(incoming)
        try:
            async with self._session.request(
                incoming.method,
                yarl.URL(self._upstream + incoming.raw_path, encoded=True),
                headers=_end_to_end(incoming.headers),
                data=request.body or None,
                allow_redirects=False,
            ) as answer:
                if failure is not None:
                    await answer.read()
                    return _drop(incoming)
                return await self._answer(incoming, request, answer)
        except (aiohttp.ClientError, ConnectionError):
            return _drop(incoming)  # as if the proxy were not there

    async def _answer(
        self, incoming: web.Request, request: ProxiedRequest, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        headers = _end_to_end(answer.headers)
        if not request.is_watch:
            headers.popall("Content-Length", None)
            body = await answer.read()
            request.status = answer.status
            await self._held(request, "after")
            return await self._send(incoming, request, web.Response(status=answer.status, headers=headers, body=body))
        request.status = answer.status
        await self._held(request, "after")
        response = web.StreamResponse(status=answer.status, headers=headers)
        await response.prepare(incoming)
        self._watching.append(incoming)
        try:
            async for chunk in answer.content.iter_any():
                await self._watches_flow.wait()
                await response.write(chunk)
            await self._watches_flow.wait()
            await response.write_eof()
        finally:
            self._watching.remove(incoming)
        return response

    async def _send(self, incoming: web.Request, request: ProxiedRequest, response: web.Response) -> web.Response:
        await response.prepare(incoming)
        await response.write_eof()
        if self._observer is not None:
            await self._observer.passes(request, "answered")
        return response

    def _failure(self, request: ProxiedRequest) -> _Failure | None:
        for failure in self._failures:
            if failure.matches(request):
                if failure.times is not None:
                    failure.times -= 1
                    if failure.times <= 0:
                        self._failures.remove(failure)
                return failure
        return None

    async def _held(self, request: ProxiedRequest, when: Literal["before", "after"]) -> None:
        if self._observer is not None:
            await self._observer.passes(request, when)
        for holding in list(self._holdings):
            if holding.when == when and holding.matches(request):
                with holding.changed:
                    holding.held += 1
                    holding.changed.notify_all()
                await holding.released.wait()


def _end_to_end(headers: multidict.CIMultiDictProxy[str]) -> multidict.CIMultiDict[str]:
    kept = ((name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP)
    return multidict.CIMultiDict(kept)


def _drop(request: web.Request) -> web.Response:
    """The client sees its connection break; what is returned is never sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)


def _status_response(code: int) -> web.Response:
    """The API server's own form of an error, metav1.Status."""
    phrase = http.HTTPStatus(code).phrase
    return web.json_response(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": f"{phrase}: a fault of the test's proxy",
            "reason": _REASONS.get(code, phrase.replace(" ", "")),
            "code": code,
        },
        status=code,
    )
