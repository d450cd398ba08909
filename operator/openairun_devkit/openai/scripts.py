"""What a run of the stand-in does, and when: a short text, parsed.

A script is steps separated by commas. A step is ``state`` or ``state:seconds``; the last state stays. States are
OpenAI's own words (of runs; ``wires`` of the stand-in put them into each API's terms), any other word is shown as
it is, and ``gone`` answers 404. Besides states there are

- ``cancel=SECONDS``: how long the run takes to stop once it is cancelled;
- ``cancel=refused``: cancelling answers 400 and changes nothing;
- ``odd_item``: the answer has an item of a type that no SDK knows;
- ``cites``: the answer cites a file and a code interpreter made one: ids of files at all places where OpenAI has them;
- ``calls=N``: where the run requires action, it asks for so many calls at once (1);
- ``turns=N``: it requires action so many times (1): each time it gets its results, it asks again until then;
- ``asks=function|custom|mcp``: what it asks for: a function call, a custom tool call, or the approval of a call to an
  MCP server. Runs on a thread know functions alone.

A run that has got its last results completes. On the responses wire each turn is a response of its own, with the
same metadata; one whose ``tool_choice`` forces a call asks for it again and again, as models do. Whatever the script,
an answer is JSON where the request has a form for it (``json_schema`` or ``json_object``).
"""

import re
from dataclasses import dataclass

GONE = "gone"

SHORTHANDS = {
    "complete": "queued:0.2,in_progress:0.6,completed",
    "fail": "queued:0.2,in_progress:0.6,failed",
    "incomplete": "queued:0.2,in_progress:0.6,incomplete",
    "expire": "queued:0.2,in_progress:0.6,expired",
    "requires_action": "queued:0.2,in_progress:0.6,requires_action",
    "two_calls": "queued:0.2,in_progress:0.6,requires_action,calls=2",
    "twice": "queued:0.2,in_progress:0.6,requires_action,turns=2",
    "custom_call": "queued:0.2,in_progress:0.6,requires_action,asks=custom",
    "mcp_approval": "queued:0.2,in_progress:0.6,requires_action,asks=mcp",
    "cites": "queued:0.2,in_progress:0.6,completed,cites",
    "never": "in_progress",
    "stuck_queued": "queued",
    "vanish": "in_progress:0.5,gone",
    "slow_cancel": "in_progress,cancel=1",
    "uncancellable": "in_progress,cancel=refused",
    "long": "in_progress:5,completed",
    "odd": "pondering:1,completed,odd_item",
}
"""The scripts that have a name."""

STATES = frozenset(
    {"queued", "in_progress", "requires_action", "cancelling", GONE}
    | {"completed", "failed", "cancelled", "incomplete", "expired"}
)
"""States that make a script by themselves; any other lone word is more likely a shorthand misspelt."""

ASKS = ("function", "custom", "mcp")

_FLAGS = frozenset({"odd_item", "cites"})
_VALUED = frozenset({"cancel", "calls", "turns", "asks"})
_STEP = re.compile(r"([a-z_]+)(?::(\d+(?:\.\d+)?))?")


@dataclass(frozen=True, slots=True)
class Script:
    """A parsed script."""

    steps: tuple[tuple[float, str], ...]
    """(seconds from the beginning, state), the first at 0."""
    cancel_seconds: float | None
    """How long cancelling takes; None: as quick as the API allows."""
    cancel_refused: bool
    odd_item: bool
    cites: bool
    calls: int
    turns: int
    asks: str

    @property
    def requires_action(self) -> bool:
        return any(state == "requires_action" for _, state in self.steps)

    def stages(self, start: float) -> list[tuple[float, str]]:
        """The steps on the clock, for a run that begins at `start`."""
        return [(start + offset, state) for offset, state in self.steps]

    def stages_with_results(self, start: float, *, again: bool) -> list[tuple[float, str]]:
        """How a run that required action goes on once it has its results: it requires more, or completes."""
        last = "requires_action" if again else "completed"
        return [(start, "queued"), (start + 0.1, "in_progress"), (start + 0.4, last)]


def parse(text: str) -> Script:
    """The script of this text, which may be a shorthand's name. ValueError where it is neither."""
    steps: list[tuple[float, str]] = []
    at: float | None = 0.0
    options: dict[str, str] = {}
    for part in (part.strip() for part in SHORTHANDS.get(text, text).split(",")):
        name, equals, value = part.partition("=")
        if equals or name in _FLAGS:
            if name not in (_VALUED if equals else _FLAGS):
                raise ValueError(f"{text!r} is no script: there is no option {part!r}")
            options[name] = value
        elif not (step := _STEP.fullmatch(part)):
            raise ValueError(f"{text!r} is no script: {part!r} is neither a state, state:seconds nor an option")
        elif at is None:
            raise ValueError(f"{text!r} is no script: only the last state may go without seconds")
        else:
            steps.append((at, step[1]))
            at = None if step[2] is None else at + float(step[2])
    if not steps:
        raise ValueError(f"{text!r} is no script: it has no state")
    if at is None and len(steps) == 1 and steps[0][1] not in STATES:
        raise ValueError(f"{text!r} is no script: shorthands are {', '.join(SHORTHANDS)}")
    cancel = options.get("cancel")
    asks = options.get("asks", "function")
    if asks not in ASKS:
        raise ValueError(f"{text!r} is no script: asks is one of {', '.join(ASKS)}")
    return Script(
        steps=tuple(steps),
        cancel_seconds=None if cancel in (None, "refused") else float(cancel),
        cancel_refused=cancel == "refused",
        odd_item="odd_item" in options,
        cites="cites" in options,
        calls=int(options.get("calls", "1")),
        turns=int(options.get("turns", "1")),
        asks=asks,
    )
