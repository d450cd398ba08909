"""`spec`: what a user asks for.

Fields are of two kinds. Those in `DEFINING` say what the run is: changing one makes a new run. All others
say how the operator treats the run, and apply in place.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from openairun_operator.api import durations
from openairun_operator.api.base import Model
from openairun_operator.api.names import METADATA_PREFIX

MAX_TEXT: Final = 65_536
"""The longest inline text, in characters."""
MAX_METADATA: Final = 12
"""OpenAI takes 16 pairs; four are the operator's own."""

DEFINING: Final = (
    "assistantID",
    "threadID",
    "input",
    "conversationID",
    "previousResponseID",
    "model",
    "instructions",
    "tools",
    "temperature",
    "topP",
    "maxTokens",
)


def _rule(rule: str, message: str, field: str | None = None) -> dict[str, str]:
    """A CEL validation rule; `field` is where the error is shown."""
    return {"rule": rule, "message": message} | ({"fieldPath": f".{field}"} if field else {})


def _rules(*rules: dict[str, str]) -> Any:
    return {"x-kubernetes-validations": list(rules)}


def _duration(name: str, least: str, most: str, example: str) -> Any:
    message = f"{name} is a duration from {least} to {most}, such as {example}"
    return _rules(
        _rule(
            f"self.matches('{durations.PATTERN}') && duration(self) >= duration('{least}')"
            f" && duration(self) <= duration('{most}')",
            message,
        )
    )


def _id(example: str) -> Any:
    return _rules(
        _rule(
            r"self.matches('^[^\\s/?#%]+$') && self != '.' && self != '..'",
            f"write the id alone, such as {example}: no spaces, slashes, ? # or %",
        )
    )


Identifier = Annotated[str, Field(min_length=1, max_length=4096)]
FreeObject = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]


class Function(Model):
    """A function of yours that the model may call."""

    name: Annotated[str, Field(min_length=1, max_length=64, description="The name by which the model calls it.")]
    description: Annotated[
        str | None,
        Field(max_length=MAX_TEXT, description="What it does and when to call it; the model reads this."),
    ] = None
    parameters: Annotated[
        FreeObject | None, Field(description="The parameters, as a JSON Schema object. Absent: none.")
    ] = None
    strict: Annotated[
        bool | None,
        Field(description="Whether the model must keep to `parameters` exactly. Absent: the server's way."),
    ] = None


class Tool(Model):
    """One tool that the model may use."""

    type: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            description="The kind of tool, as OpenAI names it: function, file_search, code_interpreter, web_search …",
        ),
    ]
    function: Annotated[Function | None, Field(description="The function, for `type: function`.")] = None
    options: Annotated[
        FreeObject | None,
        Field(description="Further fields of a hosted tool, as OpenAI's API names them; sent as they are."),
    ] = None

    model_config = Model.model_config | {
        "json_schema_extra": _rules(
            _rule(
                "self.type != 'function' || has(self.function)",
                "a tool of type function needs function: {name, description, parameters}",
                "function",
            ),
            _rule(
                "self.type == 'function' || !has(self.function)",
                "function is for type: function; a hosted tool takes its settings in options",
                "function",
            ),
            _rule(
                "self.type != 'function' || !has(self.options)",
                "options are for hosted tools; a function has all it needs in function",
                "options",
            ),
        )
    }


class OpenAIRunSpec(Model):
    """What to run, and how to treat it."""

    assistantID: Annotated[
        Identifier | None,
        Field(
            description="The assistant to run, together with threadID: the run then goes over the Assistants API."
            " OpenAI ended that API on 2026-08-26; compatible servers still serve it.",
            json_schema_extra=_id("asst_abc123"),
        ),
    ] = None
    threadID: Annotated[
        Identifier | None,
        Field(
            description="The thread to run the assistant on. Its messages are the input.",
            json_schema_extra=_id("thread_abc123"),
        ),
    ] = None
    input: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=MAX_TEXT,
            description="What to ask, as text. The run then goes over the Responses API, in background mode.",
        ),
    ] = None
    conversationID: Annotated[
        Identifier | None,
        Field(
            description="The conversation to go on with; the answer is added to it. Not with previousResponseID.",
            json_schema_extra=_id("conv_abc123"),
        ),
    ] = None
    previousResponseID: Annotated[
        Identifier | None,
        Field(
            description="The response to go on from. Not with conversationID.",
            json_schema_extra=_id("resp_abc123"),
        ),
    ] = None
    model: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=256,
            description="The model, such as gpt-5-mini. With an assistant it overrides the assistant's. Absent: the"
            " assistant's own, or else the operator's default.",
        ),
    ] = None
    instructions: Annotated[
        str | None,
        Field(
            max_length=MAX_TEXT,
            description="The system text. With an assistant it overrides the assistant's for this run.",
        ),
    ] = None
    tools: Annotated[
        list[Tool] | None,
        Field(
            max_length=128,
            description="The tools that the model may use. With an assistant they override the assistant's.",
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
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

    metadata: Annotated[
        dict[str, Annotated[str, Field(max_length=512)]] | None,
        Field(
            max_length=MAX_METADATA,
            description="Up to 12 pairs of your own, kept with the run at OpenAI: keys of at most 64 characters, values"
            f" of at most 512. Keys that begin with {METADATA_PREFIX} are the operator's. Sent when the run is"
            " created; a change is used at the next create.",
            json_schema_extra=_rules(
                _rule("self.all(k, size(k) >= 1 && size(k) <= 64)", "a metadata key has 1 to 64 characters"),
                _rule(
                    f"self.all(k, !k.startsWith('{METADATA_PREFIX}'))",
                    f"metadata keys that begin with {METADATA_PREFIX} are the operator's own: choose another name",
                ),
            ),
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
        str | None,
        Field(
            max_length=16,
            description="How long to wait between two looks at the run, 1s to 5m. Young runs are looked at sooner."
            " Absent: the operator's default, 5s.",
            json_schema_extra=_duration("pollingInterval", "1s", "5m", "5s or 1m"),
        ),
    ] = None
    timeout: Annotated[
        str | None,
        Field(
            max_length=16,
            description="How long the run may take, from the moment its id is known. After that it is cancelled, and"
            " the resource fails with reason DeadlineExceeded. Absent: the operator's default, 10m.",
            json_schema_extra=_duration("timeout", "1s", "168h", "30s, 10m or 1h30m"),
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
        "json_schema_extra": _rules(
            _rule(
                "!has(self.assistantID) || has(self.threadID)",
                "assistantID needs threadID: write the thread that the assistant runs on",
                "threadID",
            ),
            _rule(
                "!has(self.threadID) || has(self.assistantID)",
                "threadID needs assistantID: write the assistant that runs on the thread",
                "assistantID",
            ),
            _rule(
                "!has(self.assistantID) || !has(self.input)",
                "input does not go with assistantID: an assistant reads its thread. Add the text to the thread as a"
                " message, or remove assistantID and threadID",
                "input",
            ),
            _rule(
                "has(self.assistantID) || has(self.threadID) || has(self.input)",
                "nothing to run: write input (what to ask), or assistantID and threadID",
                "input",
            ),
            _rule(
                "!has(self.assistantID) || !has(self.conversationID)",
                "conversationID does not go with assistantID: remove one of them",
                "conversationID",
            ),
            _rule(
                "!has(self.assistantID) || !has(self.previousResponseID)",
                "previousResponseID does not go with assistantID: remove one of them",
                "previousResponseID",
            ),
            _rule(
                "!has(self.conversationID) || !has(self.previousResponseID)",
                "conversationID and previousResponseID exclude each other: remove one of them",
                "previousResponseID",
            ),
        )
    }
