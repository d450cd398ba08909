"""The operator's own key: from a file, which may appear, change and go at any time, or exchanged for another token."""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from openairun_operator.api.reasons import Reason
from openairun_operator.lifecycle.failure import PERSON_RETRY, CallFailedError, Failure, retry_delay

logger = logging.getLogger(__name__)

_LOOK: Final = 2.0
"""Seconds between two looks at the file. The kubelet itself takes about a minute to update it."""


def mark(key: str) -> str:
    """A mark by which another key is noticed; it does not tell the key."""
    return hmac.new(key.encode(errors="surrogateescape"), b"openairun.dev/credential", hashlib.sha256).hexdigest()[:8]


class OwnKey(Protocol):
    """The operator's own key as it is now."""

    @property
    def current(self) -> str | None: ...
    @property
    def last(self) -> str | None:
        """The last key there was: a run can still be cancelled when its Secret has gone."""

    @property
    def mark(self) -> str | None:
        """A mark by which another key is noticed; it does not tell the key."""

    @property
    def where(self) -> str:
        """Where the key comes from."""

    @property
    def trouble(self) -> Failure:
        """Why there is none, while there is none."""

    async def looked(self) -> None:
        """Wait until it is known whether there is one."""

    def refused(self) -> None:
        """The server did not take it."""

    async def watch(self, changed: Callable[[], None]) -> None:
        """Look for another; call `changed` when there is one, or none any more. Until cancelled."""


class OperatorKey:
    """The key as it is now. White space around it is dropped: most editors add a newline.

    `passing`: it is a token that somebody renews, so that another text is not another credential.
    """

    def __init__(self, file: Path | None, fixed: str | None, *, passing: bool = False) -> None:
        self._file = file
        self._fixed = fixed
        self._passing = passing
        self._last: str | None = None
        self._trouble: str | None = None
        self.current = self._read()

    def _read(self) -> str | None:
        if self._file is None:
            text = self._fixed or ""
        else:
            trouble = None
            try:
                text = self._file.read_text(encoding="utf-8")
            except FileNotFoundError:
                text = ""
            except (OSError, UnicodeDecodeError) as error:
                text, trouble = "", type(error).__name__
                if trouble != self._trouble:  # once, not at each look
                    logger.warning("Cannot read the key from %s: %s", self._file, trouble)
            self._trouble = trouble
        key = text.strip() or None
        self._last = key or self._last
        self._mark = mark(str(self._file) if self._passing else key) if key else None
        return key

    @property
    def last(self) -> str | None:
        """The last key there was: a run can still be cancelled when its Secret has gone."""
        return self._last

    @property
    def where(self) -> str:
        """Where the key comes from."""
        return f"the file {self._file}" if self._file else "OPENAI_API_KEY"

    @property
    def remedy(self) -> str:
        """What a person does where there is no key. A variable is read once, a file again and again."""
        if self._file is None:
            return "start it again with OPENAI_API_KEY set, or with --api-key-file"
        return f"put it into {self.where}, or into the Secret mounted there. All goes on by itself then"

    @property
    def mark(self) -> str | None:
        """A mark by which another key is noticed; it does not tell the key."""
        return self._mark

    @property
    def trouble(self) -> Failure:
        """Why there is none."""
        return Failure(reason=Reason.NO_CREDENTIALS, message=f"The operator has no API key: {self.remedy}")

    async def looked(self) -> None:
        """It was read when it was made."""

    def refused(self) -> None:
        """The file is read often enough."""

    async def watch(self, changed: Callable[[], None]) -> None:
        """Look at the file again and again; call `changed` when the key is another. Until cancelled."""
        while self._file is not None:
            await asyncio.sleep(_LOOK)
            before = self.current
            self.current = self._read()
            if self.current != before:
                logger.info("The key %s", "has changed" if self.current else "has gone")
                changed()


Exchange = Callable[[], Awaitable[tuple[str, float]]]
"""Gives a token, and for how many seconds it is good. Raises CallFailedError."""

_EARLY: Final = 1200.0
"""Seconds before its end that a token is renewed, or half its life."""
_LONGEST_PAUSE: Final = 60.0


class ExchangedKey:
    """A short-lived token of an `identity`: renewed before it ends, and used to its end where it cannot be."""

    where: Final = "the token that was given in exchange"

    def __init__(self, exchange: Exchange, identity: str) -> None:
        self.mark = mark(identity)
        self.trouble = Failure(reason=Reason.NO_CREDENTIALS, message="The operator has no token yet")
        self._exchange = exchange
        self._token: str | None = None
        self._since = self._ends = self._due = time.monotonic()
        self._looked, self._wake = asyncio.Event(), asyncio.Event()

    @property
    def current(self) -> str | None:
        """The token, while it is good."""
        return self._token if time.monotonic() < self._ends else None

    @property
    def last(self) -> str | None:
        """The last there was."""
        return self._token

    async def looked(self) -> None:
        """Wait for the first answer."""
        await self._looked.wait()

    def refused(self) -> None:
        """Ask for another at once, unless this one is new: then another is no better."""
        if time.monotonic() >= self._since + PERSON_RETRY:
            self._due = 0.0
            self._wake.set()

    async def watch(self, changed: Callable[[], None]) -> None:
        """Renew it again and again; call `changed` when it is another, or what is wrong. Until cancelled."""
        failures = 0
        while True:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(self._due - time.monotonic(), 0))
            before = (self._token, self.current, self.trouble)
            try:
                failures = 0 if await self._renew(failures) else failures + 1
            finally:
                self._looked.set()
            if before != (self._token, self.current, self.trouble):
                changed()

    async def _renew(self, failures: int) -> bool:
        try:
            token, lives = await self._exchange()
        except CallFailedError as error:
            if error.failure != self.trouble or not failures:  # once, not at each try
                logger.warning("%s", error.failure.message)
            self.trouble = error.failure
            self._due = time.monotonic() + _pause(error.failure, failures + 1)
            return False
        now = time.monotonic()
        self._token, self._since, self._ends = token, now, now + lives
        self._due = now + max(lives - min(_EARLY, lives / 2), _LOOK)
        logger.info("The token was renewed, and is good for %.0f s", lives)
        return True


def _pause(failure: Failure, failures: int) -> float:
    if failure.reason is Reason.NO_CREDENTIALS:  # no more than a look at a file
        return _LOOK
    return max(min(retry_delay(failure, failures, random.random()), _LONGEST_PAUSE), failure.retry_after or 0.0)
