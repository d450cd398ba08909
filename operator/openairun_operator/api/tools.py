"""Tools that the model may use, and how it is to answer."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from openairun_operator.api.base import Model
from openairun_operator.api.references import KeyRef, Source
from openairun_operator.api.rules import MAX_CALL_ID, MAX_TEXT, FreeObject, rule, rules


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
            description="The kind of tool, as OpenAI names it: function, file_search, code_interpreter, web_search,"
            " mcp …",
        ),
    ]
    function: Annotated[Function | None, Field(description="The function, for `type: function`.")] = None
    options: Annotated[
        FreeObject | None,
        Field(description="Further fields of a hosted tool, as OpenAI's API names them; sent as they are."),
    ] = None
    authorizationFrom: Annotated[
        KeyRef | None,
        Field(
            description="For `type: mcp`: the key of a Secret in this namespace that holds the token for the MCP"
            " server. It is sent to OpenAI with the run, and stands nowhere else."
        ),
    ] = None

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule(
                "self.type != 'function' || has(self.function)",
                "a tool of type function needs function: {name, description, parameters}",
                "function",
            ),
            rule(
                "self.type == 'function' || !has(self.function)",
                "function is for type: function; a hosted tool takes its settings in options",
                "function",
            ),
            rule(
                "self.type != 'function' || !has(self.options)",
                "options are for hosted tools; a function has all it needs in function",
                "options",
            ),
            rule(
                "self.type == 'mcp' || !has(self.authorizationFrom)",
                "authorizationFrom is for type: mcp",
                "authorizationFrom",
            ),
        )
    }

    @model_validator(mode="after")
    def _no_credentials_in_plain_text(self) -> Self:
        # CEL cannot see into options.
        options = self.options or {}
        if "type" in options:
            raise ValueError("options.type: write the type in `type` alone")
        if self.type == "mcp" and (named := {"authorization", "headers"} & options.keys()):
            raise ValueError(
                f"options.{min(named)}: an MCP server's credentials do not stand in a resource, where all can read"
                " them: put the token into a Secret and name it in authorizationFrom {name, key}"
            )
        return self


class ToolChoice(Model):
    """Which tools the model may, or must, call."""

    type: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            description="auto, none or required; or the kind of tool that must be called, such as function.",
        ),
    ]
    name: Annotated[
        str | None,
        Field(min_length=1, max_length=128, description="The function to call, for `type: function`."),
    ] = None
    options: Annotated[
        FreeObject | None,
        Field(description="Further fields of the choice, as OpenAI's API names them, such as server_label for mcp."),
    ] = None

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule(
                "self.type != 'function' || has(self.name)",
                "toolChoice of type function needs name: the function to call",
                "name",
            ),
            rule(
                "!(self.type in ['auto', 'none', 'required']) || !(has(self.name) || has(self.options))",
                "name and options do not go with auto, none and required",
            ),
        )
    }

    @property
    def forces(self) -> bool:
        """Whether the model must call something."""
        return self.type not in ("auto", "none")


class JSONSchema(Model):
    """The form of a structured answer."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            description="A name for the form: letters, digits, _ and -.",
            json_schema_extra=rules(
                rule("self.matches('^[a-zA-Z0-9_-]+$')", "name holds letters, digits, _ and - only")
            ),
        ),
    ]
    description: Annotated[
        str | None, Field(max_length=MAX_TEXT, description="What it is for; the model reads this.")
    ] = None
    definition: Annotated[FreeObject, Field(alias="schema", description="The JSON Schema of the answer.")]
    strict: Annotated[
        bool | None,
        Field(description="Whether the answer must keep to the schema exactly. Absent: the server's way."),
    ] = None


class ResponseFormat(Model):
    """The form of the answer."""

    type: Annotated[
        Literal["text", "json_object", "json_schema"],
        Field(description="text; json_object: any JSON; json_schema: JSON of the form in jsonSchema."),
    ]
    jsonSchema: Annotated[JSONSchema | None, Field(description="The form, for `type: json_schema`.")] = None

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule(
                "(self.type == 'json_schema') == has(self.jsonSchema)",
                "jsonSchema {name, schema} goes with type: json_schema, and with no other",
                "jsonSchema",
            )
        )
    }

    @property
    def structured(self) -> bool:
        """Whether the answer is JSON."""
        return self.type != "text"


class Message(Model):
    """A message that is put before the model."""

    role: Annotated[Literal["user", "assistant"], Field(description="Whose words they are.")]
    content: Annotated[str, Field(min_length=1, max_length=MAX_TEXT, description="The text.")]


class Truncation(Model):
    """What to do when the context grows too long."""

    type: Annotated[
        Literal["auto", "disabled", "last_messages"],
        Field(
            description="auto: drop from the middle or the beginning. disabled: fail instead (Responses API)."
            " last_messages: keep the last lastMessages of the thread (Assistants API)."
        ),
    ]
    lastMessages: Annotated[
        int | None,
        Field(
            ge=1,
            le=2**31 - 1,
            description="How many messages to keep, for `type: last_messages`.",
            json_schema_extra={"format": "int32"},
        ),
    ] = None

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule(
                "(self.type == 'last_messages') == has(self.lastMessages)",
                "lastMessages goes with type: last_messages, and with no other",
                "lastMessages",
            )
        )
    }


class ToolOutput(Model):
    """The answer to one tool call of `status.requiredAction`."""

    toolCallID: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_CALL_ID,
            description="The id of the call, as in status.requiredAction.toolCalls.",
        ),
    ]
    output: Annotated[
        str | None, Field(max_length=MAX_TEXT, description="What the call gave; may be the empty string.")
    ] = None
    outputFrom: Annotated[
        Source | None,
        Field(description="The same, from a ConfigMap or Secret: read once, when all calls are answered."),
    ] = None
    approve: Annotated[
        bool | None, Field(description="For a call of type mcp_approval: whether the MCP server may be called.")
    ] = None

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule(
                "(has(self.output) ? 1 : 0) + (has(self.outputFrom) ? 1 : 0) + (has(self.approve) ? 1 : 0) == 1",
                "write one of output, outputFrom and approve (for an MCP approval)",
            )
        )
    }
