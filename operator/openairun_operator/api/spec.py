"""`spec`: what a user asks for.

Fields are of two kinds. Those in `DEFINING` say what the run is: changing one makes a new run. All others
say how the operator treats the run, and apply in place.
"""

from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import Field

from openairun_operator.api import durations
from openairun_operator.api.base import Model
from openairun_operator.api.names import METADATA_PREFIX
from openairun_operator.api.references import ObjectName, ProviderRef, Source
from openairun_operator.api.rules import (
    ATOMIC,
    MAX_TEXT,
    Identifier,
    ModelName,
    PollingInterval,
    Timeout,
    duration,
    identifier,
    rule,
    rules,
)
from openairun_operator.api.tools import Message, ResponseFormat, Tool, ToolChoice, ToolOutput, Truncation

MAX_METADATA: Final = 12
"""OpenAI takes 16 pairs; four are the operator's own."""

DEFINING: Final = (
    "assistantID",
    "threadID",
    "input",
    "inputFrom",
    "conversationID",
    "previousResponseID",
    "model",
    "instructions",
    "additionalInstructions",
    "additionalMessages",
    "tools",
    "toolChoice",
    "parallelToolCalls",
    "responseFormat",
    "reasoningEffort",
    "temperature",
    "topP",
    "maxTokens",
    "maxPromptTokens",
    "truncation",
)


class OutputTo(Model):
    """Where the whole answer is written."""

    configMap: Annotated[
        ObjectName,
        Field(
            description="A ConfigMap in this namespace, made by the operator. It goes with the resource, unless"
            " ttlAfterFinished is set."
        ),
    ]


class OpenAIRunSpec(Model):
    """What to run, and how to treat it."""

    assistantID: Annotated[
        Identifier | None,
        Field(
            description="The assistant to run, together with threadID: the run then goes over the Assistants API."
            " OpenAI ended that API on 2026-08-26; compatible servers still serve it.",
            json_schema_extra=identifier("asst_abc123"),
        ),
    ] = None
    threadID: Annotated[
        Identifier | None,
        Field(
            description="The thread to run the assistant on. Its messages are the input.",
            json_schema_extra=identifier("thread_abc123"),
        ),
    ] = None
    input: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=MAX_TEXT,
            description="What to ask, as text. The run then goes over the Responses API, in background mode.",
            json_schema_extra=rules(rule(r"self.matches('\\S')", "input is blank: write what to ask")),
        ),
    ] = None
    inputFrom: Annotated[
        Source | None,
        Field(
            description="The same as input, of any length, from a ConfigMap or Secret in this namespace. It is read"
            " once, when the run is created: a change of what stands there makes no new run."
        ),
    ] = None
    conversationID: Annotated[
        Identifier | None,
        Field(
            description="The conversation to go on with; the answer is added to it. Not with previousResponseID.",
            json_schema_extra=identifier("conv_abc123"),
        ),
    ] = None
    previousResponseID: Annotated[
        Identifier | None,
        Field(
            description="The response to go on from. Not with conversationID.",
            json_schema_extra=identifier("resp_abc123"),
        ),
    ] = None
    model: Annotated[
        ModelName | None,
        Field(
            description="The model, such as gpt-5-mini. With an assistant it overrides the assistant's. Absent: the"
            " assistant's own, or else the provider's default, or else the operator's."
        ),
    ] = None
    instructions: Annotated[
        str | None,
        Field(
            max_length=MAX_TEXT,
            description="The system text. With an assistant it overrides the assistant's for this run.",
        ),
    ] = None
    additionalInstructions: Annotated[
        str | None,
        Field(max_length=MAX_TEXT, description="Text that is added at the end of the instructions, for this run."),
    ] = None
    additionalMessages: Annotated[
        list[Message] | None,
        Field(
            min_length=1,
            max_length=32,
            description="Messages that are put before the model: after those of the thread, or before the input.",
            json_schema_extra=ATOMIC,
        ),
    ] = None
    tools: Annotated[
        list[Tool] | None,
        Field(
            max_length=128,
            description="The tools that the model may use. With an assistant they override the assistant's.",
            json_schema_extra=ATOMIC,
        ),
    ] = None
    toolChoice: Annotated[
        ToolChoice | None, Field(description="Which tools the model may or must call. Absent: it chooses.")
    ] = None
    parallelToolCalls: Annotated[
        bool | None,
        Field(description="Whether the model may ask for several calls at once. Absent: the server's way."),
    ] = None
    responseFormat: Annotated[
        ResponseFormat | None,
        Field(description="The form of the answer: text, or JSON of a certain form. Absent: text."),
    ] = None
    reasoningEffort: Annotated[
        str | None,
        Field(
            max_length=32,
            description="How much a reasoning model thinks: none, minimal, low, medium, high, xhigh. Which of them a"
            " model takes is its own affair. Absent: the model's own.",
            json_schema_extra=rules(
                rule("self.matches('^[a-z]+$')", "reasoningEffort is one word, such as low, medium or high")
            ),
        ),
    ] = None
    temperature: Annotated[
        float | None,
        Field(
            ge=0,
            le=2,
            description="Sampling temperature, 0 to 2: higher is more random. Absent: the server's.",
        ),
    ] = None
    topP: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="Nucleus sampling, 0 to 1: an alternative to temperature. Absent: the server's.",
        ),
    ] = None
    maxTokens: Annotated[
        int | None,
        Field(
            ge=1,
            le=2**31 - 1,
            description="The most tokens that the run may generate (max_output_tokens, or max_completion_tokens over"
            " the Assistants API). A run that reaches it ends as Incomplete.",
            json_schema_extra={"format": "int32"},
        ),
    ] = None

    maxPromptTokens: Annotated[
        int | None,
        Field(
            ge=256,
            le=2**31 - 1,
            description="The most tokens of the thread that the run may read, over all its steps; with an assistant"
            " only. A run that reaches it ends as Incomplete.",
            json_schema_extra={"format": "int32"},
        ),
    ] = None
    truncation: Annotated[
        Truncation | None,
        Field(description="What to do when the context grows too long. Absent: the server's way."),
    ] = None

    metadata: Annotated[
        dict[str, Annotated[str, Field(max_length=512)]] | None,
        Field(
            max_length=MAX_METADATA,
            description="Up to 12 pairs of your own, kept with the run at OpenAI: keys of at most 64 characters, values"
            f" of at most 512. Keys that begin with {METADATA_PREFIX} are the operator's. Sent when the run is"
            " created; a change is used at the next create.",
            json_schema_extra=rules(
                rule("self.all(k, size(k) >= 1 && size(k) <= 64)", "a metadata key has 1 to 64 characters"),
                rule(
                    f"self.all(k, !k.startsWith('{METADATA_PREFIX}'))",
                    f"metadata keys that begin with {METADATA_PREFIX} are the operator's own: choose another name",
                ),
            ),
        ),
    ] = None
    providerRef: Annotated[
        ProviderRef | None,
        Field(
            description="An OpenAIProvider in this namespace. Absent: the provider called `default` in this namespace,"
            " if there is one, else the operator's own. It applies to the next create."
        ),
    ] = None
    waitForCompletion: Annotated[
        bool,
        Field(
            description="What Ready means. True: Ready becomes True when the run has completed. False: as soon as the"
            " run exists."
        ),
    ] = True
    pollingInterval: Annotated[
        PollingInterval | None,
        Field(
            description="How long to wait between two looks at the run, 1s to 5m. Young runs are looked at sooner."
            " Absent: the provider's default, or else the operator's, 5s."
        ),
    ] = None
    timeout: Annotated[
        Timeout | None,
        Field(
            description="How long the run may take, from the moment its id is known. After that it is cancelled, and"
            " the resource fails with reason DeadlineExceeded. Absent: the provider's default, or else the operator's,"
            " 10m."
        ),
    ] = None
    completionWindow: Annotated[
        int | None,
        Field(
            ge=1,
            le=604_800,
            description="The same as timeout, in seconds, by its name in Terraform. Not with timeout.",
            json_schema_extra={"format": "int32"},
        ),
    ] = None
    streamForTool: Annotated[
        bool | None,
        Field(
            description="Has no effect, as in Terraform: streaming for tools exists only in the Chat Completions API."
        ),
    ] = None
    runID: Annotated[
        Identifier | None,
        Field(
            description="The id of a run that exists: it is taken up, and none is created while this is set. Has no"
            " effect on a resource that has a run. With threadID it is a run over the Assistants API.",
            json_schema_extra=identifier("resp_abc123 or run_abc123"),
        ),
    ] = None
    cancel: Annotated[
        bool,
        Field(
            description="True: the run is cancelled, and none is created. Back to false revives nothing: to run again,"
            " change the definition, or annotate openairun.dev/create-again."
        ),
    ] = False
    suspend: Annotated[
        bool,
        Field(description="True: no run is created until this is false again. Has no effect on a run that goes."),
    ] = False
    deletionPolicy: Annotated[
        Literal["Cancel", "Orphan"],
        Field(
            description="What becomes of a run that goes when this resource is deleted. Cancel: it is cancelled."
            " Orphan: it is left alone."
        ),
    ] = "Cancel"
    toolOutputs: Annotated[
        list[ToolOutput] | None,
        Field(
            max_length=128,
            description="Answers to the tool calls in status.requiredAction, sent once all calls are answered.",
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["toolCallID"]},
        ),
    ] = None
    outputTo: Annotated[
        OutputTo | None,
        Field(
            description="Where to write the whole answer; status.output holds its beginning only. The operator must be"
            " allowed to write ConfigMaps."
        ),
    ] = None
    ttlAfterFinished: Annotated[
        str | None,
        Field(
            max_length=16,
            description="How long after its end the resource is deleted by the operator, such as 24h. Absent: never."
            " Not for resources that Argo CD or Flux apply: they would apply it again, and run it again.",
            json_schema_extra=duration("ttlAfterFinished", "0s", "8760h", "0s, 30m or 24h"),
        ),
    ] = None
    onUnknownCreate: Annotated[
        Literal["Stop", "CreateAgain"],
        Field(
            description="What to do when a create got no answer and the run cannot be searched for. Stop: wait for a"
            " person, so that nothing runs twice. CreateAgain: create another, at the risk of two runs."
        ),
    ] = "Stop"

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule(
                "!has(self.assistantID) || has(self.threadID)",
                "assistantID needs threadID: write the thread that the assistant runs on",
                "threadID",
            ),
            rule(
                "!has(self.threadID) || has(self.assistantID) || has(self.runID)",
                "threadID needs assistantID: write the assistant that runs on the thread",
                "assistantID",
            ),
            rule(
                "!(has(self.assistantID) || has(self.threadID)) || !(has(self.input) || has(self.inputFrom))",
                "input does not go with assistantID or threadID: an assistant reads its thread. Put the text into"
                " additionalMessages, or remove assistantID and threadID",
                "input",
            ),
            rule(
                "!has(self.input) || !has(self.inputFrom)",
                "input and inputFrom exclude each other: remove one of them",
                "inputFrom",
            ),
            rule(
                "has(self.assistantID) || has(self.threadID) || has(self.input) || has(self.inputFrom) ||"
                " has(self.additionalMessages) || has(self.runID)",
                "nothing to run: write input (what to ask), or assistantID and threadID",
                "input",
            ),
            rule(
                "!(has(self.assistantID) || has(self.threadID)) || !has(self.conversationID)",
                "conversationID does not go with assistantID or threadID: remove one of them",
                "conversationID",
            ),
            rule(
                "!(has(self.assistantID) || has(self.threadID)) || !has(self.previousResponseID)",
                "previousResponseID does not go with assistantID or threadID: remove one of them",
                "previousResponseID",
            ),
            rule(
                "!has(self.conversationID) || !has(self.previousResponseID)",
                "conversationID and previousResponseID exclude each other: remove one of them",
                "previousResponseID",
            ),
            rule(
                "has(self.threadID) || !has(self.maxPromptTokens)",
                "maxPromptTokens goes with an assistant only, the Responses API has no such limit: remove it",
                "maxPromptTokens",
            ),
            rule(
                "has(self.threadID) || !has(self.truncation) || self.truncation.type != 'last_messages'",
                "last_messages goes with an assistant only: write auto or disabled",
                "truncation.type",
            ),
            rule(
                "!has(self.threadID) || !has(self.truncation) || self.truncation.type != 'disabled'",
                "disabled does not go with an assistant: write auto or last_messages",
                "truncation.type",
            ),
            rule(
                "!has(self.timeout) || !has(self.completionWindow)",
                "completionWindow is timeout by another name, in seconds: remove one of them",
                "completionWindow",
            ),
        )
    }

    @property
    def defines(self) -> bool:
        """Whether it says what to run, and not only which run to take up."""
        return any(part is not None for part in (self.input, self.inputFrom, self.additionalMessages, self.assistantID))

    @property
    def limit(self) -> timedelta | None:
        """How long the run may take, if the spec says so."""
        if self.completionWindow is not None:
            return timedelta(seconds=self.completionWindow)
        return durations.parse(self.timeout) if self.timeout else None
