"""What a wire saw of a run, in the same terms whichever API carries it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from openairun_operator.api.record import API, Record, Usage
from openairun_operator.api.references import KeyRef
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.api.status import CallType


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that the model asks for; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str
    type: CallType = "function"
    server: str | None = None
    """The MCP server that asks for approval."""


@dataclass(frozen=True, slots=True)
class SeenStep:
    """A run step, or an item of a response's output. `details` is JSON text, not yet cut or cleaned."""

    id: str
    type: str
    object: str | None = None
    status: str | None = None
    created_at: float | None = None
    details: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunObservation:
    """A run as OpenAI described it at one moment. Times are Unix seconds; absent is None.

    `status` is OpenAI's own word; a response that completed with unanswered function calls is
    `requires_action` here, as it would be on the other wire.
    """

    id: str
    status: str
    object: str | None = None
    model: str | None = None
    thread: str | None = None
    conversation: str | None = None
    created_at: float | None = None
    started_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    cancelled_at: float | None = None
    expires_at: float | None = None
    error: tuple[str, str] | None = None
    incomplete_reason: str | None = None
    calls: tuple[Call, ...] = ()
    steps: tuple[SeenStep, ...] | None = None
    """The steps, oldest first; None where they were not asked for: they are worth it only when something is decided."""
    step_count: int = 0
    """How many steps there are, if `steps` holds only the last."""
    files: tuple[str, ...] = ()
    """Ids of files that were given, made or cited."""
    usage: Usage | None = None
    text: str | None = None
    at_rest: bool = False
    """Nothing goes on at OpenAI, whatever `status` says: a response that asked for tool results has ended."""
    cancel_refused: bool = False
    """Seen in place of a cancel that the server refused; and the run goes on."""
    poll_after: float | None = None
    """Seconds that the server asks to wait before the next look."""


@dataclass(frozen=True, slots=True)
class RunRef:
    """Where a run is: its id, and on the assistants wire its thread."""

    api: API
    id: str
    thread: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A run that is looked at: as much of its record as a look needs."""

    ref: RunRef
    provider: str
    began: datetime | None
    """When its id was known or, if that was later, outputs were submitted: while it is young it is polled often."""

    @classmethod
    def of(cls, record: Record) -> "Target":
        """The run of this record, which has an id."""
        assert record.followed is not None
        began = record.recordedAt
        if record.turn:
            began = max(began or record.turn.submittedAt, record.turn.submittedAt)
        return cls(RunRef(record.api, record.followed, record.thread), record.provider, began)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What references in the spec lead to, read once for one create or submission: `purpose` says which."""

    purpose: str
    read_at: datetime
    input: str | None = field(default=None, repr=False)
    authorizations: Mapping[KeyRef, str] = field(default_factory=dict[KeyRef, str], repr=False)
    results: Mapping[str, str] | None = field(default=None, repr=False)
    """The tool outputs that stand elsewhere, by the id of the call; None: not read."""


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A run to create: the definition, the model for want of another, and the metadata sent along."""

    spec: OpenAIRunSpec
    default_model: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, Any])
    input: str | None = None
    """What `inputFrom` refers to."""
    authorizations: Mapping[KeyRef, str] = field(default_factory=dict[KeyRef, str], repr=False)
    """What the tools' `authorizationFrom` refer to."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The answer to one call: an output, or for an MCP approval yes or no."""

    id: str
    type: CallType
    output: str = field(default="", repr=False)
    approve: bool | None = None


@dataclass(frozen=True, slots=True)
class SubmitRequest:
    """Tool outputs for a run that waits for them; `definition` is carried along where a new response is made."""

    ref: RunRef
    results: tuple[ToolResult, ...]
    definition: CreateRequest
