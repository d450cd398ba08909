"""Pieces of which the models are made: CEL rules with messages, and kinds of text that many fields share.

A rule is written as Kubernetes' "Validation rules" (x-kubernetes-validations) has it; its message says what to write.
"""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

MAX_TEXT: Final = 65_536
"""The longest inline text, in characters."""
MAX_ID: Final = 768
"""The longest id at OpenAI. Some gateways hold a whole route in theirs; a record has room for 1024 bytes."""
MAX_CALL_ID: Final = 4096
"""The longest id of a tool call: some servers hold a signature in it."""
MAX_DEPTH: Final = 100
"""The most levels of free JSON, into which CEL cannot see. The API server takes 10,000, OpenAI takes 10 of a schema."""


def rule(expression: str, message: str, field: str | None = None) -> dict[str, str]:
    """A CEL validation rule; `field` is where the error is shown."""
    return {"rule": expression, "message": message} | ({"fieldPath": f".{field}"} if field else {})


def rules(*several: dict[str, str]) -> Any:
    """The rules as a piece of JSON schema."""
    return {"x-kubernetes-validations": list(several)}


_SHORT: Final = "^([0-9]{1,6}h|[0-9]{1,7}m|[0-9]{1,8}s)+$"
"""A duration of few digits: CEL knows none of more than 292 years, and gives an error of its own for one."""


def duration(name: str, least: str, most: str, example: str) -> Any:
    """The rule of a duration between two others."""
    return rules(
        rule(
            f"self.matches('{_SHORT}') && duration(self) >= duration('{least}')"
            f" && duration(self) <= duration('{most}')",
            f"{name} is a duration from {least} to {most}, such as {example}",
        )
    )


def identifier(example: str) -> Any:
    """The rule of an id at OpenAI: it becomes part of a path."""
    return rules(
        rule(
            r"""self.matches('^[!"$&-.0->@-~]+$') && self != '.' && self != '..'""",
            f"write the id alone, such as {example}: no spaces, slashes, ? # or %, and nothing but printable ASCII",
        )
    )


def too_deep(value: Any) -> bool:
    """Whether JSON is nested deeper than `MAX_DEPTH` levels."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return False
        level = [part for each in level for part in (each.values() if isinstance(each, dict) else each)]
    return True


def _not_too_deep(value: dict[str, Any]) -> dict[str, Any]:
    if too_deep(value):
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    return value


Identifier = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
ModelName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        json_schema_extra=rules(
            rule(
                r"self.matches('\\S') && !self.matches('\\p{Cc}')",
                "model is a name without control characters, such as gpt-5-mini",
            )
        ),
    ),
]
PollingInterval = Annotated[
    str, Field(max_length=16, json_schema_extra=duration("pollingInterval", "1s", "5m", "5s or 1m"))
]
Timeout = Annotated[str, Field(max_length=16, json_schema_extra=duration("timeout", "1s", "168h", "30s, 10m or 1h30m"))]
FreeObject = Annotated[
    dict[str, Any],
    AfterValidator(_not_too_deep),
    Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}),
]

ATOMIC: Final[dict[str, Any]] = {"x-kubernetes-list-type": "atomic"}
