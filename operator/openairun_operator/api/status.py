"""`status`: what the operator says of the run. Absent means unknown; every text and list has a bound."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from openairun_operator.api.base import Model, Whole
from openairun_operator.api.record import API, Record, Usage
from openairun_operator.api.rules import ATOMIC

MAX_OUTPUT_BYTES: Final = 64 * 1024
MAX_MESSAGE: Final = 1024
MAX_CONDITION_MESSAGE: Final = 32_768
"""As metav1.Condition has it."""
MAX_HISTORY: Final = 5
MAX_RESPONSE_IDS: Final = 20
MAX_TOOL_CALLS: Final = 64
MAX_ARGUMENTS: Final = 4096
MAX_ALL_ARGUMENTS: Final = 32_768
MAX_STEPS: Final = 20
MAX_DETAILS: Final = 1024
MAX_FILES: Final = 100


CallType = Literal["function", "custom", "mcp_approval"]


class Condition(Whole):
    """As metav1.Condition."""

    type: Annotated[str, Field(max_length=316, description="What the condition speaks of.")]
    status: Annotated[Literal["True", "False", "Unknown"], Field(description="True, False or Unknown.")]
    reason: Annotated[str, Field(max_length=1024, description="Why, as one of the documented constants.")]
    message: Annotated[
        str, Field(max_length=MAX_CONDITION_MESSAGE, description="Why, and what to do next, for a person.")
    ] = ""
    lastTransitionTime: Annotated[datetime, Field(description="When status last changed.")]
    observedGeneration: Annotated[
        int | None,
        Field(
            description="The generation of the resource that this speaks of.",
            json_schema_extra={"format": "int64"},
        ),
    ] = None


ObservedGeneration = Annotated[
    int,
    Field(
        description="The generation of the resource that this status speaks of; -1 before the operator saw it.",
        json_schema_extra={"format": "int64"},
    ),
]
BY_TYPE: Final[dict[str, Any]] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
"""How lists of conditions are merged."""


class LastError(Whole):
    """Why the run failed, in OpenAI's words."""

    code: Annotated[str, Field(description="OpenAI's error code.")]
    message: Annotated[str, Field(description="OpenAI's message.")]


class IncompleteDetails(Whole):
    """Why the run ended as Incomplete."""

    reason: Annotated[str, Field(description="OpenAI's reason, such as max_output_tokens.")]


class ToolCall(Model):
    """A call that the model asks for."""

    id: Annotated[str, Field(description="The id of the call: the toolCallID of its answer.")]
    type: Annotated[
        CallType,
        Field(description="function or custom: answered by its output. mcp_approval: answered by approve."),
    ] = "function"
    name: Annotated[str, Field(description="The function to call, or the MCP server's tool.")]
    arguments: Annotated[
        str,
        Field(description="Its arguments, as JSON text, cut at 4096 characters, or sooner if there are many calls."),
    ]
    truncated: Annotated[
        bool | None, Field(description="True if arguments are only the beginning: OpenAI has the whole.")
    ] = None
    serverLabel: Annotated[str | None, Field(description="The MCP server that asks for approval.")] = None


class RequiredAction(Whole):
    """What the run waits for."""

    toolCalls: Annotated[
        list[ToolCall],
        Field(description="The calls to answer in spec.toolOutputs, at most 64.", json_schema_extra=ATOMIC),
    ]
    total: Annotated[int | None, Field(description="How many calls there are, if not all are listed.")] = None


class Step(Model):
    """One step of the run: a run step on a thread, or an item of a response's output."""

    id: Annotated[str, Field(description="Its id at OpenAI.")]
    object: Annotated[str | None, Field(description="OpenAI's name for the kind of object.")] = None
    type: Annotated[str, Field(description="What was done, such as message_creation, message or function_call.")]
    status: Annotated[str | None, Field(description="How it stands, in OpenAI's words.")] = None
    createdAt: Annotated[datetime | None, Field(description="When it began, where OpenAI says so.")] = None
    details: Annotated[str | None, Field(description="More of it, as OpenAI's JSON, cut at 1024 characters.")] = None


class Output(Whole):
    """The answer."""

    text: Annotated[str, Field(description="The answer's text, cut at 64 KiB.")]
    bytes: Annotated[int, Field(description="The size of the whole text in bytes, as UTF-8.")]
    truncated: Annotated[bool, Field(description="True if text is only the beginning of the answer.")]
    configMap: Annotated[
        str | None, Field(description="The ConfigMap that holds the whole answer, once it is written there.")
    ] = None
    sha256: Annotated[
        str | None, Field(description="The SHA-256 of the whole answer as it stands in the ConfigMap, in hex.")
    ] = None


class Effective(Whole):
    """The values that hold for this run, after all defaults."""

    timeout: Annotated[str | None, Field(description="How long the run may take.")] = None
    pollingInterval: Annotated[str | None, Field(description="How long between two looks.")] = None
    provider: Annotated[
        str | None,
        Field(
            description="The OpenAIProvider whose key and address are used, or `operator`: the operator's own. While a"
            " run is to be created: the one that it waits for."
        ),
    ] = None


class PastRun(Model):
    """A run that another one replaced."""

    runID: Annotated[str | None, Field(description="Its id; absent if its create got no answer.")] = None
    lastResponseID: Annotated[
        str | None, Field(description="The last response of a run that is made of several: it goes if any does.")
    ] = None
    api: Annotated[API | None, Field(description="The API it was created over.")] = None
    phase: Annotated[str | None, Field(description="The phase it was last seen in.")] = None
    reason: Annotated[str | None, Field(description="Why it was in that phase.")] = None
    token: Annotated[str | None, Field(description="The mark in its metadata at OpenAI.")] = None
    submittedAt: Annotated[datetime | None, Field(description="When its create was sent.")] = None
    finishedAt: Annotated[datetime | None, Field(description="When it was finished.")] = None
    usage: Annotated[Usage | None, Field(description="Tokens that it used.")] = None


class OpenAIRunStatus(Model):
    """How the run goes."""

    observedGeneration: ObservedGeneration = -1
    api: Annotated[API | None, Field(description="The API that carries the run: Responses or Assistants.")] = None
    phase: Annotated[
        str | None,
        Field(
            description="The run's status at OpenAI in CamelCase: Queued, InProgress, RequiresAction, Cancelling,"
            " Cancelled, Completed, Failed, Incomplete, Expired; Pending before there is a run. A summary: rely on"
            " conditions."
        ),
    ] = None
    runID: Annotated[
        str | None,
        Field(description="The run's id at OpenAI. A run of several responses keeps the id of its first."),
    ] = None
    object: Annotated[
        str | None, Field(description="OpenAI's name for the kind of object: response or thread.run.")
    ] = None
    threadID: Annotated[str | None, Field(description="The thread that the run is on.")] = None
    conversationID: Annotated[str | None, Field(description="The conversation that the run is part of.")] = None
    responseIDs: Annotated[
        list[str] | None,
        Field(description="The responses that make up the run, the last 20.", json_schema_extra=ATOMIC),
    ] = None
    responseCount: Annotated[int | None, Field(description="How many responses make up the run.")] = None
    createdAt: Annotated[datetime | None, Field(description="When OpenAI created the run.")] = None
    startedAt: Annotated[
        datetime | None,
        Field(description="When it started: OpenAI's time, or where it gives none, when that was first seen."),
    ] = None
    completedAt: Annotated[
        datetime | None,
        Field(description="When it completed: OpenAI's time, or where it gives none, when that was first seen."),
    ] = None
    failedAt: Annotated[
        datetime | None,
        Field(description="When it failed: OpenAI's time, or where it gives none, when that was first seen."),
    ] = None
    cancelledAt: Annotated[
        datetime | None,
        Field(description="When it was cancelled: OpenAI's time, or where it gives none, when that was first seen."),
    ] = None
    expiresAt: Annotated[datetime | None, Field(description="When OpenAI will let it expire.")] = None
    finishedAt: Annotated[
        datetime | None, Field(description="When the run was seen to be finished, however it ended.")
    ] = None
    lastError: Annotated[LastError | None, Field(description="Why the run failed.")] = None
    incompleteDetails: Annotated[IncompleteDetails | None, Field(description="Why the run is incomplete.")] = None
    requiredAction: Annotated[RequiredAction | None, Field(description="What the run waits for.")] = None
    steps: Annotated[
        list[Step] | None,
        Field(
            description="The last 20 steps, as they were when the run asked for tool results or was finished.",
            json_schema_extra=ATOMIC,
        ),
    ] = None
    stepCount: Annotated[int | None, Field(description="How many steps there are.")] = None
    fileIDs: Annotated[
        list[str] | None,
        Field(
            description="Files at OpenAI that were given, made or cited, at most 100.",
            json_schema_extra=ATOMIC,
        ),
    ] = None
    usage: Annotated[Usage | None, Field(description="Tokens used, over all responses of the run.")] = None
    output: Annotated[Output | None, Field(description="The answer.")] = None
    model: Annotated[str | None, Field(description="The model that answers, as OpenAI names it.")] = None
    effective: Annotated[Effective | None, Field(description="The values that hold for this run.")] = None
    history: Annotated[
        list[PastRun] | None,
        Field(description="Runs that this one replaced, newest first, at most 5.", json_schema_extra=ATOMIC),
    ] = None
    record: Annotated[
        Record | None, Field(description="The operator's own record, as in the annotation openairun.dev/run.")
    ] = None
    conditions: Annotated[
        list[Condition],
        Field(
            description="Ready, Reconciling, Stalled, Finished, Succeeded, Synced, in this order, and where they apply"
            " ActionRequired, CreateOutcomeUnknown, Suspended, OutputStored and Advisory.",
            json_schema_extra=BY_TYPE,
        ),
    ] = Field(default_factory=list)

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, if there is one."""
        return next((c for c in self.conditions if c.type == type_), None)
