"""Pieces of which the models are made: CEL rules with messages, and kinds of text that many fields share.

A rule is written as Kubernetes' "Validation rules" (x-kubernetes-validations) has it; its message says what to write.
"""

from typing import Annotated, Any, Final

from pydantic import Field

from openairun_operator.api import durations

MAX_TEXT: Final = 65_536
"""The longest inline text, in characters."""


def rule(expression: str, message: str, field: str | None = None) -> dict[str, str]:
    """A CEL validation rule; `field` is where the error is shown."""
    return {"rule": expression, "message": message} | ({"fieldPath": f".{field}"} if field else {})


def rules(*several: dict[str, str]) -> Any:
    """The rules as a piece of JSON schema."""
    return {"x-kubernetes-validations": list(several)}


def duration(name: str, least: str, most: str, example: str) -> Any:
    """The rule of a duration between two others."""
    return rules(
        rule(
            f"self.matches('{durations.PATTERN}') && duration(self) >= duration('{least}')"
            f" && duration(self) <= duration('{most}')",
            f"{name} is a duration from {least} to {most}, such as {example}",
        )
    )


def identifier(example: str) -> Any:
    """The rule of an id at OpenAI: it becomes part of a path."""
    return rules(
        rule(
            r"self.matches('^[^\\s/?#%]+$') && self != '.' && self != '..'",
            f"write the id alone, such as {example}: no spaces, slashes, ? # or %",
        )
    )


Identifier = Annotated[str, Field(min_length=1, max_length=4096)]
FreeObject = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]

ATOMIC: Final[dict[str, Any]] = {"x-kubernetes-list-type": "atomic"}
