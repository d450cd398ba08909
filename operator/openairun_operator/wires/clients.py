"""Clients of the openai SDK: a pool of connections for each trust, nothing from the environment, no hidden retries."""

import asyncio
import contextlib
import os
import ssl
import urllib.request
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, Literal
from urllib.parse import quote

import aiohttp
import httpx2
import openai
from multidict import CIMultiDict
from openai import AsyncOpenAI, DefaultAioHttpClient
from openai._vendor.httpx_aiohttp import AiohttpTransport
from openai._vendor.httpx_aiohttp.transport import AiohttpResponseStream
from yarl import URL

from openairun_operator.wires import errors
from openairun_operator.wires.guard import Guard, GuardedResolver, Network
from openairun_operator.wires.hiding import Hidden

Method = Literal["GET", "POST"]

_MAX_CONNECTIONS: Final = 256
_MAX_CLIENTS: Final = 512
"""Clients that are kept; the one that was not used for longest goes first."""
_CONNECT_TIMEOUT: Final = 10.0
MAX_ANSWER: Final = 32 * 1024 * 1024
"""Bytes of an answer, unpacked, that are read."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key and where it may be sent. Neither the key nor the CA bundle shows in a repr."""

    base_url: str
    key: str = field(repr=False)
    organization: str | None = None
    project: str | None = None
    api_version: str | None = None
    """Sent as the query `api-version` with each request, as Azure wants it."""
    key_in_header: bool = False
    """The key is sent as `api-key`, as Azure wants it, and not as a bearer token."""
    ca_bundle: str | None = field(default=None, repr=False)
    """Certificates in PEM form that are trusted instead of the system's."""
    guarded: bool = False
    """A namespace chose the address: none that is internal to the cluster's nodes or to the cloud is connected to."""
    timeout: float | None = None
    """Seconds that one request may take in all; None: what the `Clients` say."""

    def __post_init__(self) -> None:
        # Files and Secrets end in a newline more often than not.
        object.__setattr__(self, "key", self.key.strip())

    @property
    def trust(self) -> "Trust":
        return Trust(self.ca_bundle, self.guarded)

    def check(self) -> None:
        """Raises ValueError for what no HTTP header can carry; the SDK would quote it, or fail without a word.

        And for an address whose host no name server can be asked for: a request to it fails in a way that cannot be
        told from one that was sent.
        """
        if not self.key:
            raise ValueError("the key is empty")
        for name in ("key", "organization", "project"):
            value = getattr(self, name) or ""
            if not (value.isascii() and value.isprintable()):
                raise ValueError(f"the {name} holds characters that no HTTP header can carry")
        try:
            (URL(self.base_url).raw_host or "").encode("idna")
        except ValueError:
            raise ValueError("the address is no URL") from None


@dataclass(frozen=True, slots=True)
class Trust:
    """What decides whom connections are made to. Those of different trust are never shared."""

    ca_bundle: str | None
    guarded: bool

    def context(self) -> ssl.SSLContext:
        """What certificates are verified by. Raises ValueError for a bundle that cannot be read."""
        if self.ca_bundle is None:
            return httpx2.create_ssl_context()
        # Comments may hold any character; certificates do not.
        pem = self.ca_bundle.encode("ascii", "replace").decode()
        if not pem.strip():
            raise ValueError("the CA bundle is empty")
        try:
            return ssl.create_default_context(cadata=pem)
        except ssl.SSLError:
            raise ValueError(
                "the CA bundle cannot be read: it must be certificates in PEM form, each from a line"
                " -----BEGIN CERTIFICATE----- to a line -----END CERTIFICATE-----, without indentation"
            ) from None


# What httpx2 loads for its first client, some fifty modules, is loaded here: amid the objects of a first burst it would
# keep the memory of these from being given back.
httpx2.AsyncHTTPTransport(verify=httpx2.create_ssl_context())


class _Pool(DefaultAioHttpClient):
    """The SDK's client on aiohttp, for one trust.

    An answer longer than `MAX_ANSWER` fails with TooLargeError as it is read: a server that is not trusted could else
    fill the operator's memory, with a few packed bytes too.

    A proxy that the environment names (HTTPS_PROXY) carries requests to the administrator's own addresses alone. It
    would look names up by itself, and take a namespace's request around the guard.
    """

    def __init__(self, trust: Trust, timeout: float, guard: Guard) -> None:
        self._guard = guard if trust.guarded else None
        self.direct = trust.guarded or not urllib.request.getproxies()
        """Whether `ask` may be used: it knows of no proxy."""
        self._going = 0
        self._retired = False
        super().__init__(
            verify=trust.context(),
            trust_env=not trust.guarded,
            # Redirects are not followed: a create must not be sent twice, nor a key to another host.
            follow_redirects=False,
            # One tenant's cookies would be sent with the next one's requests.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=_timeout(timeout),
            limits=httpx2.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_CONNECTIONS),
        )

    def _session(self) -> aiohttp.ClientSession:
        """As the transport makes it, but guarded, and without cookies too."""
        guarded: dict[str, Any] = {}
        if self._guard:
            guarded = {"resolver": GuardedResolver(self._guard), "socket_factory": self._guard.socket}
        connector = aiohttp.TCPConnector(
            limit=_MAX_CONNECTIONS,
            keepalive_timeout=self._direct.limits.keepalive_expiry,
            ssl=self._direct.ssl_context,
            **guarded,
        )
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    def _init_transport(self, **options: Any) -> httpx2.AsyncBaseTransport:  # type: ignore[override] # as the SDK's own
        self._direct = AiohttpTransport(**options)
        self._direct.client = self._session
        return self._direct

    async def send(self, request: httpx2.Request, *, stream: bool = False, **more: Any) -> httpx2.Response:
        async with self._used(request.url.host):
            return await self._send(request, stream=stream, **more)

    async def ask(
        self, method: Method, url: URL, headers: Mapping[str, str], timeout: aiohttp.ClientTimeout
    ) -> "Answered":
        """Send a request without a body, and without httpx2, which takes more time than all else.

        As with `send`, no redirect is followed and no more than MAX_ANSWER is read.
        """
        async with self._used(url.host or ""):
            session = self._direct.client = self._direct.get_client()
            # yarl would write some ids in another way; packed, an answer could hide its size.
            async with session.request(
                method, url, headers=headers, allow_redirects=False, auto_decompress=False, timeout=timeout
            ) as answer:
                parts: AsyncIterator[bytes] = answer.content.iter_chunked(_CHUNK)
                if "Content-Encoding" in answer.headers:
                    packed = AiohttpResponseStream(answer)
                    parts = httpx2.Response(answer.status, headers=answer.raw_headers, stream=packed).aiter_bytes()
                content = await _whole(parts)
                return Answered(answer.status, answer.reason or "", answer.headers, answer.raw_headers, content)

    @contextlib.asynccontextmanager
    async def _used(self, host: str) -> AsyncIterator[None]:
        if self._guard:
            self._guard.check_host(host)
        self._going += 1
        try:
            yield
        finally:
            self._going -= 1
            await self._rest()

    async def _send(self, request: httpx2.Request, *, stream: bool, **more: Any) -> httpx2.Response:
        answer = await super().send(request, stream=True, **more)
        if stream:
            return answer
        try:
            content = await _whole(answer.aiter_bytes())
        finally:
            await answer.aclose()
        headers = _unpacked(answer.headers.raw)
        return httpx2.Response(
            answer.status_code, headers=headers, content=content, request=request, extensions=answer.extensions
        )

    async def retire(self) -> None:
        """Close the connections as soon as no request needs them. A request that comes later opens new ones."""
        self._retired = True
        await self._rest()

    async def _rest(self) -> None:
        session = self._direct.client
        if self._retired and not self._going and isinstance(session, aiohttp.ClientSession):
            self._direct.client = self._session
            await session.close()


async def _whole(parts: AsyncIterator[bytes]) -> bytes:
    """All of an answer. Raises TooLargeError as soon as it is longer than MAX_ANSWER."""
    read, size = [], 0
    async for part in parts:
        size += len(part)
        if size > MAX_ANSWER:
            raise errors.TooLargeError(f"more than {MAX_ANSWER >> 20} MiB")
        read.append(part)
    return b"".join(read)


_CHUNK: Final = 65_536
_SAFE: Final = "!$&'()*+,;=:@"
"""What may stand as it is in a part of a path (RFC 3986, 3.3)."""

_OF_PACKING: Final = (b"content-encoding", b"content-length", b"transfer-encoding")
"""Headers that are true of the answer as it was sent, and no more of the unpacked one."""


def _unpacked(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers as they came, since a gateway may write any character in its own, but those of packing."""
    return [(name, value) for name, value in headers if name.lower() not in _OF_PACKING]


def _timeout(seconds: float) -> httpx2.Timeout:
    return httpx2.Timeout(seconds, connect=min(_CONNECT_TIMEOUT, seconds))


@dataclass(frozen=True, slots=True)
class Answered:
    """What a server answered to `Client.ask`."""

    status: int
    reason: str
    headers: Mapping[str, str]
    """By names in any case."""
    raw_headers: Sequence[tuple[bytes, bytes]]
    content: bytes


class Client(AsyncOpenAI):
    """The SDK's client, which can also look at runs and cancel them without what the SDK takes for it."""

    def __init__(self, credentials: Credentials, pool: _Pool, timeout: float) -> None:
        version = credentials.api_version
        super().__init__(
            api_key=credentials.key,
            base_url=credentials.base_url,
            organization=credentials.organization,
            project=credentials.project,
            default_query=None if version is None else {"api-version": version},
            timeout=_timeout(timeout),
            max_retries=0,
            http_client=pool,
        )
        self._pool = pool
        self.hidden = Hidden(credentials.key)
        """What no answer may carry on."""
        self._query = {} if version is None else {"api-version": version}
        in_header = credentials.key_in_header
        key = {"api-key": credentials.key} if in_header else {"Authorization": f"Bearer {credentials.key}"}
        named = {"OpenAI-Organization": credentials.organization, "OpenAI-Project": credentials.project}
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": self.user_agent,
            **key,
            **{name: value for name, value in named.items() if value is not None},
        }
        self._headers = CIMultiDict(headers)
        self._address = str(self.base_url).rstrip("/")
        self._wait = aiohttp.ClientTimeout(
            connect=timeout, sock_connect=min(_CONNECT_TIMEOUT, timeout), sock_read=timeout
        )

    @property
    def user_agent(self) -> str:
        return f"AsyncOpenAI/Python {openai.__version__}"  # as it is; the SDK's has the name of this class

    async def ask(
        self, method: Method, *path: str, headers: Mapping[str, str] | None = None
    ) -> Answered | httpx2.Response:
        """GET what `path` names, below the client's address, or POST nothing to it. Raises what the SDK raises.

        `headers` are those by which the API is told from others.
        """
        if any(name in (".", "..") for name in path):
            raise ValueError("an id that a URL would take for another folder")
        where = "/" + "/".join(quote(name, safe=_SAFE) for name in path)
        if not self._pool.direct:
            send = self.get if method == "GET" else self.post
            return await send(where, cast_to=httpx2.Response, options={"headers": headers or {}})
        url = URL(f"{self._address}{where}", encoded=True)
        if self._query:
            url = url.with_query(self._query)
        said: Mapping[str, str] = {**self._headers, **headers} if headers else self._headers
        if method == "POST":
            said = {**said, "Content-Type": "application/json"}  # of an empty body too, as the SDK has it
        answer = await self._pool.ask(method, url, said, self._wait)
        if 200 <= answer.status < 300:
            return answer
        raise self._make_status_error_from_response(
            httpx2.Response(
                answer.status,
                headers=_unpacked(answer.raw_headers),
                content=answer.content,
                request=httpx2.Request(method, str(url)),
                extensions={"reason_phrase": answer.reason.encode(errors="replace")},
            )
        )


class _KeyInHeader(Client):
    """Sends the key as Azure wants it."""

    async def _prepare_request(self, request: httpx2.Request) -> None:
        await super()._prepare_request(request)
        del request.headers["Authorization"]
        request.headers["api-key"] = self.api_key


@contextlib.contextmanager
def _without_openai_variables() -> Iterator[None]:
    """The SDK reads OPENAI_CUSTOM_HEADERS and others even when all is passed; one of them can replace the key."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("OPENAI_")}
    try:
        yield
    finally:
        os.environ.update(hidden)


class Clients:
    """Makes clients, and keeps a bounded number of them. Those of one trust share a pool of connections.

    `allowed` are networks that guarded credentials may reach though they are internal.

    Close it once, at the end.
    """

    def __init__(self, request_timeout: float, allowed: tuple[Network, ...] = ()) -> None:
        self.request_timeout = request_timeout
        """Seconds that one request may take in all, where its credentials say nothing else."""
        self._guard = Guard(allowed)
        self._pools: dict[Trust, _Pool] = {}
        self._made: OrderedDict[Credentials, Client] = OrderedDict()
        self._retiring: set[asyncio.Task[None]] = set()

    def timeout(self, credentials: Credentials) -> float:
        """Seconds that one request with these credentials may take in all."""
        return self.request_timeout if credentials.timeout is None else credentials.timeout

    def client(self, credentials: Credentials) -> Client:
        """The client for these credentials. Must be called with a running event loop.

        Raises ValueError for a key that no HTTP header can carry, a CA bundle that cannot be read, or an address that
        is none.
        """
        made = self._made.get(credentials)
        if made is None:
            credentials.check()
            made = self._made[credentials] = self._make(credentials)
            if len(self._made) > _MAX_CLIENTS:
                self.forget(next(iter(self._made)))
        self._made.move_to_end(credentials)
        return made

    def forget(self, credentials: Credentials) -> None:
        """These credentials are used no more: drop their client, and their CA bundle's pool if it was the last."""
        self._made.pop(credentials, None)
        self._drop_pool(credentials.trust)

    def _drop_pool(self, trust: Trust) -> None:
        if trust.ca_bundle is None or any(other.trust == trust for other in self._made):
            return
        pool = self._pools.pop(trust, None)
        if pool is not None:
            task = asyncio.create_task(pool.retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def _make(self, credentials: Credentials) -> Client:
        trust = credentials.trust
        pool = self._pools.get(trust)
        if pool is None:
            pool = self._pools[trust] = _Pool(trust, self.request_timeout, self._guard)
        kind = _KeyInHeader if credentials.key_in_header else Client
        try:
            with _without_openai_variables():
                return kind(credentials, pool, self.timeout(credentials))
        except httpx2.InvalidURL:
            self._drop_pool(trust)
            raise ValueError("the address is no URL") from None

    async def close(self) -> None:
        """Close all connections."""
        pools, self._pools = self._pools, {}
        self._made.clear()
        await asyncio.gather(*self._retiring, *(pool.aclose() for pool in pools.values()))
