"""Clients of the openai SDK: one transport for all, nothing taken from the environment, no hidden retries."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
import openai.resources.beta.beta  # with the next: else the first request loads them, in the time that it has
import openai.resources.responses.responses  # noqa: F401
from openai import AsyncOpenAI, DefaultAioHttpClient

from openairun_operator.wires import errors

_MAX_CONNECTIONS: Final = 256
_CONNECT_TIMEOUT: Final = 10.0
MAX_ANSWER: Final = 32 * 1024 * 1024
"""Bytes of an answer, unpacked, that are read."""


class _BoundedClient(DefaultAioHttpClient):
    """The SDK's client on aiohttp; an answer longer than `MAX_ANSWER` fails with TooLargeError as it is read.

    A server that is not trusted could else fill the operator's memory, with a few packed bytes too.
    """

    async def send(self, request: httpx2.Request, *, stream: bool = False, **more: Any) -> httpx2.Response:
        answer = await super().send(request, stream=True, **more)
        if stream:
            return answer
        parts, size = [], 0
        try:
            async for part in answer.aiter_bytes():
                size += len(part)
                if size > MAX_ANSWER:
                    raise errors.TooLargeError(f"more than {MAX_ANSWER >> 20} MiB")
                parts.append(part)
        finally:
            await answer.aclose()
        headers = [(name, value) for name, value in answer.headers.multi_items() if name not in _OF_PACKING]
        return httpx2.Response(
            answer.status_code, headers=headers, content=b"".join(parts), request=request, extensions=answer.extensions
        )


_OF_PACKING: Final = ("content-encoding", "content-length", "transfer-encoding")
"""Headers that are true of the answer as it was sent, and no more of the unpacked one."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key and where it may be sent. The key never shows in a repr."""

    base_url: str
    key: str = field(repr=False)
    organization: str | None = None
    project: str | None = None


@contextlib.contextmanager
def _without_openai_variables() -> Iterator[None]:
    """The SDK reads OPENAI_CUSTOM_HEADERS and others even when all is passed; one of them can replace the key."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OPENAI_")}
    try:
        yield
    finally:
        os.environ.update(hidden)


class Clients:
    """Makes clients that share one pool of connections. Close it once, at the end."""

    def __init__(self, request_timeout: float) -> None:
        self.request_timeout = request_timeout
        """Seconds that one request may take in all."""
        self._http: httpx2.AsyncClient | None = None
        self._made: dict[Credentials, AsyncOpenAI] = {}

    def client(self, credentials: Credentials) -> AsyncOpenAI:
        """The client for these credentials. Must be called with a running event loop.

        Raises ValueError for a key that no HTTP header can carry.
        """
        made = self._made.get(credentials)
        if made is None:
            if not credentials.key.isascii() or not credentials.key.isprintable():
                raise ValueError("the key holds characters that no HTTP header can carry")
            made = self._make(credentials)
            self._made = {credentials: made}  # the operator's own key alone: an old one is of no more use
        return made

    def _make(self, credentials: Credentials) -> AsyncOpenAI:
        if self._http is None:
            # Redirects are not followed: a create must not be sent twice, nor a key to another host.
            self._http = _BoundedClient(
                follow_redirects=False,
                timeout=httpx2.Timeout(self.request_timeout, connect=min(_CONNECT_TIMEOUT, self.request_timeout)),
                limits=httpx2.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_CONNECTIONS),
            )
        with _without_openai_variables():
            return AsyncOpenAI(
                api_key=credentials.key,
                base_url=credentials.base_url,
                organization=credentials.organization,
                project=credentials.project,
                max_retries=0,
                http_client=self._http,
            )

    async def close(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http, self._made = None, {}
