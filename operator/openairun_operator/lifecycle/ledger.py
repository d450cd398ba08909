"""Who may send a create: the part of the record that lives in memory.

The record on the object says that an attempt was claimed; only this process knows whether it was sent. What
the API server shows can be old, so the claim alone must never be a licence to send: it is used up here,
before the first byte.
"""

from dataclasses import dataclass
from typing import Final

from openairun_operator.lifecycle.failure import Failure, Outcome
from openairun_operator.lifecycle.observation import RunObservation


@dataclass(frozen=True, slots=True)
class Claimed:
    """This process wrote the claim and has sent nothing."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The create was sent; there is no answer yet, or none will come."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The create succeeded: this is the run."""

    observation: RunObservation


@dataclass(frozen=True, slots=True)
class Failed:
    """The create failed in the way that `failure` says."""

    failure: Failure


Entry = Claimed | Sent | Answered | Failed

_KEPT: Final = 8


class Ledger:
    """The attempts of this process for one resource, by token. Only `claimed` may become `sent`, and once."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def claim(self, token: str, keep: str | None = None) -> None:
        """Note the claim before it is written. A second claim of the same token changes nothing.

        Of earlier attempts the last few stay, and `keep` in any case: a claim whose write seemed to fail may turn
        up on the object all the same, and then it is known that it was never sent.
        """
        self._entries.setdefault(token, Claimed())
        for old in list(self._entries)[:-_KEPT]:
            if old != keep:
                del self._entries[old]

    def send(self, token: str) -> bool:
        """Use up the claim. True: the caller, and nobody after it, may send the create."""
        if isinstance(self._entries.get(token), Claimed):
            self._entries[token] = Sent()
            return True
        return False

    def answer(self, token: str, entry: Answered | Failed) -> None:
        """Note what came of the create that was sent."""
        self._entries[token] = entry

    def unknown(self, token: str) -> bool:
        """Whether what was claimed may have taken effect, and nobody knows."""
        match self.get(token):
            case Claimed() | Answered():
                return False
            case Failed(failure):
                return failure.outcome is Outcome.UNKNOWN
            case Sent() | None:
                return True

    def get(self, token: str) -> Entry | None:
        """What this process knows of the attempt; None if it was another's."""
        return self._entries.get(token)
