"""The operator's own key: from a Secret mounted as files, which may appear, change and go at any time."""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

_LOOK: Final = 2.0
"""Seconds between two looks at the file. The kubelet itself takes about a minute to update it."""


def mark(key: str) -> str:
    """A mark by which another key is noticed; it does not tell the key."""
    return hmac.new(key.encode(errors="surrogateescape"), b"openairun.dev/credential", hashlib.sha256).hexdigest()[:8]


class OperatorKey:
    """The key as it is now. White space around it is dropped: most editors add a newline."""

    def __init__(self, file: Path | None, fixed: str | None) -> None:
        self._file = file
        self._fixed = fixed
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
        return None if self.current is None else mark(self.current)

    async def watch(self, changed: Callable[[], None]) -> None:
        """Look at the file again and again; call `changed` when the key is another. Until cancelled."""
        while self._file is not None:
            await asyncio.sleep(_LOOK)
            before = self.current
            self.current = self._read()
            if self.current != before:
                logger.info("The key %s", "has changed" if self.current else "has gone")
                changed()
