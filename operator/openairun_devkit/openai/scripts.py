"""What a run of the stand-in does, and when: a short text, parsed.

A script is steps separated by commas. A step is ``state`` or ``state:seconds``; the last state stays. States are
OpenAI's own words (of runs; ``wires`` of the stand-in put them into each API's terms), any other word is shown as
it is, and ``gone`` answers 404. Besides states there are

- ``cancel=SECONDS``: how long the run takes to stop once it is cancelled;
- ``cancel=refused``: cancelling answers 400 and changes nothing;
- ``odd_item``: the answer has an item of a type that no SDK knows.
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
    "never": "in_progress",
    "stuck_queued": "queued",
    "vanish": "in_progress:0.5,gone",
    "slow_cancel": "in_progress,cancel=1",
    "uncancellable": "in_progress,cancel=refused",
    "long": "in_progress:5,completed",
    "odd": "pondering:1,completed,odd_item",
}
"""The scripts that have a name."""

AFTER_TOOL_OUTPUTS = "queued:0.1,in_progress:0.3,completed"
"""How a run that required action goes on once it has the outputs."""

STATES = frozenset(
    {"queued", "in_progress", "requires_action", "cancelling", GONE}
    | {"completed", "failed", "cancelled", "incomplete", "expired"}
)
"""States that make a script by themselves; any other lone word is more likely a shorthand misspelt."""

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

    def stages(self, start: float) -> list[tuple[float, str]]:
        """The steps on the clock, for a run that begins at `start`."""
        return [(start + offset, state) for offset, state in self.steps]


def parse(text: str) -> Script:
    """The script of this text, which may be a shorthand's name. ValueError where it is neither."""
    steps: list[tuple[float, str]] = []
    at: float | None = 0.0
    cancel_seconds: float | None = None
    cancel_refused = odd_item = False
    for part in (part.strip() for part in SHORTHANDS.get(text, text).split(",")):
        if part == "odd_item":
            odd_item = True
        elif part == "cancel=refused":
            cancel_refused = True
        elif part.startswith("cancel="):
            cancel_seconds = float(part.removeprefix("cancel="))
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
    return Script(tuple(steps), cancel_seconds, cancel_refused, odd_item)
