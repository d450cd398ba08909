"""What both wires share: one call, made once, read as raw JSON, its failure put into our terms.

Raw JSON because a look at a run needs few fields, and because an unknown item in an answer must pass through
where the SDK's models would complain.
"""

import asyncio
import dataclasses
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API
from openairun_operator.api.rules import MAX_ID
from openairun_operator.lifecycle import phase, text
from openairun_operator.lifecycle.failure import CallFailedError
from openairun_operator.lifecycle.observation import RunObservation
from openairun_operator.wires import errors
from openairun_operator.wires.clients import Client, Clients, Credentials
from openairun_operator.wires.hiding import Hidden

ASSISTANTS_V2: Final = {"OpenAI-Beta": "assistants=v2"}
"""What the SDK sends with each call over the Assistants API."""
_MILLISECONDS: Final = 1e11
"""A time above this, the year 5138, is in milliseconds."""


class Raw(Protocol):
    """A raw response of the SDK."""

    @property
    def content(self) -> bytes: ...
    @property
    def headers(self) -> Any: ...


class Caller:
    """Makes the calls of one action, with one client over one API.

    Whoever acts has paid for its first request; each further one, such as a search's next page, calls `spend` before
    it is sent.
    """

    def __init__(self, client: Client, api: API, timeout: float, spend: Callable[[], None] | None = None) -> None:
        self.client = client
        self.api = api
        self.address = str(client.base_url).rstrip("/")
        self._timeout = timeout
        self._spend = spend
        self._requests = 0

    async def call(
        self,
        send: Callable[[Client], Awaitable[Raw]],
        *,
        doing: errors.Doing = "look",
        secrets: Iterable[str] = (),
    ) -> "Answer":
        """Make the call, at most `timeout` seconds in all, and read its answer. Raises CallFailedError.

        `secrets` are sent with it, besides the key: nothing that is said of the call may carry them on.
        """
        if self._requests and self._spend:
            self._spend()
        self._requests += 1
        hidden = (self.client.api_key, *(secrets := tuple(secrets)))
        try:
            async with asyncio.timeout(self._timeout):
                raw = await send(self.client)
                content, headers = raw.content, raw.headers
        except Exception as error:  # noqa: BLE001 - whatever it is, the call has failed
            # Not from `error`: its text is the server's, and a traceback would show it as it is.
            raise errors.failed(error, self.api, self.address, doing=doing, secrets=hidden) from None
        try:
            body = (Hidden(*hidden) if secrets else self.client.hidden).taken_out(content)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            kind = headers.get("content-type", "no content type")
            raise errors.unreadable(self.address, f"{kind}, no JSON object", *hidden)
        return Answer(body, headers, self.address)


def caller_of(clients: Clients, credentials: Credentials, api: API, spend: Callable[[], None] | None = None) -> Caller:
    """A Caller with these credentials, and the time that they give. Raises ValueError as `Clients.client` does."""
    return Caller(clients.client(credentials), api, clients.timeout(credentials), spend)


class Answer:
    """A JSON object from a server that is not trusted: fields of the wrong type count as absent."""

    def __init__(self, body: Mapping[str, Any], headers: Mapping[str, str], address: str) -> None:
        self.body = body
        self.headers = headers
        self.address = address

    def text(self, name: str) -> str | None:
        """The field, if it is text and not empty."""
        value = self.body.get(name)
        return value if isinstance(value, str) and value else None

    def id(self, name: str, most: int = MAX_ID) -> str | None:
        """The field, if it is text that can be an id: one that could forge a line of a log, or a field, or that no
        record has room for, is none.
        """
        value = self.text(name)
        fits = value is not None and value.isascii() and value.isprintable() and len(value) <= most
        return value if fits and value and text.REDACTED not in value else None

    def seconds(self, name: str) -> float | None:
        """The field, if it is a time; some servers give milliseconds."""
        value = self.body.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MILLISECONDS * 1000:
            return None
        return value / 1000 if value > _MILLISECONDS else float(value)

    def object(self, name: str) -> "Answer":
        """The field, if it is an object; else an empty one."""
        value = self.body.get(name)
        return Answer(value if isinstance(value, dict) else {}, {}, self.address)

    def objects(self, name: str) -> "list[Answer]":
        """The field's objects, if it is a list."""
        value = self.body.get(name)
        items = value if isinstance(value, list) else []
        return [Answer(item, {}, self.address) for item in items if isinstance(item, dict)]

    def count(self, name: str) -> int | None:
        """The field, if it counts something: a whole number, not negative, that 64 bits can hold, as the API server
        demands.
        """
        value = self.body.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None

    def identity(self) -> tuple[str, str]:
        """`id` and `status`; an answer without them is no run. Raises CallFailedError."""
        id_, status = self.id("id"), self.text("status")
        if id_ is None or status is None:
            raise errors.unreadable(self.address, "no status in it, or no id that can be one")
        return id_, status

    def poll_after(self) -> float | None:
        """Seconds that the server asks to wait before the next look (`openai-poll-after-ms`), at most a minute."""
        try:
            wanted = float(self.headers.get("openai-poll-after-ms", "")) / 1000
        except ValueError:
            return None
        return None if math.isnan(wanted) else min(max(wanted, 0.0), 60.0)


def absent_is_omitted(body: Mapping[str, Any]) -> dict[str, Any]:
    """`body` without the fields that are None."""
    return {name: value for name, value in body.items() if value is not None}


def refused(error: CallFailedError) -> bool:
    """Whether a cancel was refused (400, 404, 409): servers differ, so only the run itself tells what that means."""
    return error.failure.reason in (Reason.REFUSED, Reason.NOT_FOUND, Reason.BUSY)


def as_refused(seen: RunObservation) -> RunObservation:
    """What a look showed after a cancel was refused: unless the run is ending anyway, it must be asked again."""
    ending = seen.at_rest or seen.status == "cancelling" or phase.of(seen.status) in phase.TERMINAL
    return seen if ending else dataclasses.replace(seen, cancel_refused=True)
