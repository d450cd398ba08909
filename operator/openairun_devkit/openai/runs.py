"""A run of the stand-in, on either wire: the stages it goes through and what was asked of it."""

import secrets
from dataclasses import dataclass, field
from typing import Any, Literal

from openairun_devkit.openai import scripts
from openairun_devkit.openai.errors import APIError

Wire = Literal["responses", "assistants"]

FINISHED = frozenset({"completed", "failed", "cancelled", "incomplete", "expired", scripts.GONE})


@dataclass(slots=True)
class Run:
    """One run. Times are seconds by the stand-in's clock."""

    id: str
    wire: Wire
    thread: str | None
    """The thread on the assistants wire; the conversation, if any, on the responses wire."""
    request: dict[str, Any]
    """The body that created it."""
    script: scripts.Script
    created_at: float
    stages: list[tuple[float, str]]
    """(since when, state), in order; later ones lie in the future. What is past never changes."""
    cancel_calls: int = 0
    polls: int = 0
    turn: int = 0
    """How many times the run got results; on the responses wire, the responses before it included."""
    results: dict[str, Any] = field(default_factory=dict)
    """The outputs that it got on a thread, by the id of the call."""
    rendered: tuple[int, bytes] = (-1, b"")
    """The last answer to a GET, and the stage it tells of: most polls find nothing new."""

    @property
    def tail(self) -> str:
        """The id without its prefix, from which the ids of what belongs to the run are made."""
        return self.id.partition("_")[2]

    @property
    def metadata(self) -> dict[str, str]:
        return self.request.get("metadata") or {}

    def stage(self, now: float) -> int:
        """The index of the stage that the run is in."""
        index = len(self.stages) - 1
        while index and self.stages[index][0] > now:
            index -= 1
        return index

    def state(self, now: float) -> str:
        """The script's word for where the run is."""
        return self.stages[self.stage(now)][1]

    def since(self, states: frozenset[str], now: float) -> int | None:
        """When the run first came into one of these states, in whole seconds; None where it has not yet."""
        return next((int(at) for at, state in self.stages if state in states and at <= now), None)

    def go_on(self, now: float, stages: list[tuple[float, str]]) -> None:
        """Forget what the script still had in store; from now on these stages follow."""
        self.stages = self.stages[: self.stage(now) + 1] + stages

    def answer(self, default: str) -> str:
        """The text of the answer: `default`, or as long as the metadata key ``standin_text`` (``text:N``) says."""
        wish = self.metadata.get("standin_text")
        if wish is None:
            return default
        length = int(wish.removeprefix("text:"))
        filler = "All work and no play makes a dull stand-in. "
        return (filler * (length // len(filler) + 1))[:length]


def new_run(
    wire: Wire,
    prefix: str,
    body: dict[str, Any],
    *,
    thread: str | None,
    default_script: str,
    now: float,
    turn: int = 0,
    again: bool = False,
) -> Run:
    """A run that follows the script in its metadata (key ``standin``), else the default one.

    In a later turn a run whose script requires action has had it: it completes, or asks `again`.
    """
    metadata = body.get("metadata") or {}
    try:
        script = scripts.parse(metadata.get("standin", default_script))
        if (wish := metadata.get("standin_text")) is not None:
            int(wish.removeprefix("text:"))
    except ValueError as error:
        raise APIError(400, f"Stand-in: {error}", param="metadata", code="standin_script") from error
    id = f"{prefix}_{secrets.token_hex(24 if wire == 'responses' else 12)}"
    later = turn > 0 and script.requires_action
    stages = script.stages_with_results(now, again=again or turn < script.turns) if later else script.stages(now)
    return Run(id, wire, thread, body, script, now, stages, turn=turn)


def tokens(text: str) -> int:
    """About what a tokenizer would count: four characters each (OpenAI's rule of thumb)."""
    return len(text) // 4 + 1
