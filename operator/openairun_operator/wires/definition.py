"""What both wires write alike of a run's definition."""

from collections.abc import Mapping
from typing import Any, Final

from openairun_operator.api.references import KeyRef
from openairun_operator.api.tools import JSONSchema, Tool, ToolChoice
from openairun_operator.wires.calls import absent_is_omitted

_WORDS: Final = ("auto", "none", "required")
"""Choices that are a word by themselves, of type ToolChoiceOptions in OpenAI's API description."""


def hosted_tool(tool: Tool, authorizations: Mapping[KeyRef, str]) -> dict[str, Any]:
    """A tool that is no function. Its `type` and its token stand in fields of their own, so no option replaces them.

    Raises KeyError where `authorizations` lack the token that the tool refers to.
    """
    token = authorizations[tool.authorizationFrom] if tool.authorizationFrom else None
    return {**(tool.options or {}), "type": tool.type, **absent_is_omitted({"authorization": token})}


def tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    """A choice that is a word, or an object with its name, if it has one, beside its type."""
    if choice.type in _WORDS:
        return choice.type
    return {**(choice.options or {}), "type": choice.type, **absent_is_omitted({"name": choice.name})}


def json_schema(form: JSONSchema) -> dict[str, Any]:
    """The form of a structured answer."""
    optional = absent_is_omitted({"description": form.description, "strict": form.strict})
    return {"name": form.name, "schema": form.definition, **optional}
