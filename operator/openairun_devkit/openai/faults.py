"""What shall go wrong: faults told beforehand, each for the next so many requests that match."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal

from openairun_devkit.openai.recorder import Pattern

When = Literal["before", "after"]
"""Before the request is processed, or after it was processed and before it is answered."""


@dataclass(slots=True)
class Fault:
    """One fault. With a `status` or a `body` the request is not processed, unless `process` says so."""

    id: str
    match: str
    """``METHOD regex``, the regex searched in the path (``POST /responses$``); ``*`` is any method."""
    submits: bool | None = None
    """True: only for requests that bring tool results, on the responses wire too; False: only for others."""
    times: int | None = 1
    """For how many requests; None: for all."""
    status: int | None = None
    """Alone: with OpenAI's usual error body. Absent beside a body: 200."""
    reason: str | None = None
    """The reason phrase behind the status, where it is not the usual one."""
    body: Any = None
    """A string goes out as it is, anything else as JSON."""
    headers: dict[str, str] = field(default_factory=dict)
    """Added to the answer, also to an otherwise normal one."""
    content_type: str | None = None
    delay: float = 0.0
    """Seconds from the request's arrival to whatever happens next."""
    close: When | None = None
    """Drop the connection without an answer. On a connection used before, aiohttp's client (the SDK's too, with
    that transport) sends a GET once more by itself, which a fault for one request then no longer meets."""
    hold: When | None = None
    """Stop until released. A client that goes away meanwhile is not noticed: the request goes on."""
    process: bool = False
    """Process the request although the answer is the fault's: a gateway's time-out, a garbled answer."""
    matched: int = 0
    held: set[asyncio.Future[None]] = field(default_factory=set)
    pattern: Pattern = field(init=False, repr=False)

    def __post_init__(self) -> None:
        method, _, path = self.match.partition(" ")
        if not path:
            raise ValueError(f"{self.match!r} is not METHOD and a regular expression")
        if self.close not in (None, "before", "after") or self.hold not in (None, "before", "after"):
            raise ValueError("close and hold are before or after")
        self.pattern = Pattern(method, path)

    def meets(self, method: str, path: str, *, submits: bool) -> bool:
        """Whether the fault is for such a request, and not used up."""
        return (
            (self.times is None or self.matched < self.times)
            and self.submits in (None, submits)
            and self.pattern.matches(method, path)
        )

    @property
    def answers(self) -> bool:
        """Whether the fault brings its own answer."""
        return self.status is not None or self.body is not None

    async def wait_here(self) -> None:
        """Hold the request until the fault is released."""
        gate = asyncio.get_running_loop().create_future()
        self.held.add(gate)
        try:
            await gate
        finally:
            self.held.discard(gate)

    def release(self) -> None:
        """Let those go that wait now; later ones wait again."""
        for gate in self.held:
            if not gate.done():
                gate.set_result(None)
        self.held.clear()

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "match": self.match,
            "submits": self.submits,
            "times": self.times,
            "status": self.status,
            "reason": self.reason,
            "body": self.body,
            "headers": self.headers,
            "content_type": self.content_type,
            "delay": self.delay,
            "close": self.close,
            "hold": self.hold,
            "process": self.process,
            "matched": self.matched,
            "waiting": len(self.held),
        }


class Faults:
    """The faults in force, in the order they were told. At most one takes part in a request: the first."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}
        self._count = 0

    def add(self, match: str, **what: Any) -> Fault:
        """ValueError or TypeError where it makes no sense."""
        self._count += 1
        fault = Fault(f"fault-{self._count}", match, **what)
        self._faults[fault.id] = fault
        return fault

    def take(self, method: str, path: str, *, submits: bool) -> Fault | None:
        """The fault for this request, counted. `submits`: the request brings tool results."""
        for fault in self._faults.values():
            if fault.meets(method, path, submits=submits):
                fault.matched += 1
                return fault
        return None

    def all(self) -> list[Fault]:
        return list(self._faults.values())

    def release(self, id: str | None = None) -> None:
        """Release what one fault holds, or all. KeyError where there is no such fault."""
        for fault in self.all() if id is None else [self._faults[id]]:
            fault.release()

    def clear(self) -> None:
        self.release()
        self._faults.clear()
