"""References to what stands elsewhere in the resource's own namespace."""

from typing import Annotated

from pydantic import Field

from openairun_operator.api.base import Model
from openairun_operator.api.rules import rule, rules

ObjectName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        json_schema_extra=rules(
            rule(
                r"self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
                "write the name of an object in this namespace, such as my-text: lower case letters, digits, - and .",
            )
        ),
    ),
]
Key = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        json_schema_extra=rules(
            rule("self.matches('^[-._a-zA-Z0-9]+$')", "a key holds letters, digits, -, _ and . only")
        ),
    ),
]


class KeyRef(Model):
    """One key of an object in the same namespace."""

    name: Annotated[ObjectName, Field(description="The object's name.")]
    key: Annotated[Key, Field(description="The key in its data.")]


class ProviderRef(Model):
    """An OpenAIProvider in the same namespace."""

    name: Annotated[ObjectName, Field(description="The provider's name.")]


class Source(Model):
    """A text that stands in a ConfigMap or a Secret. It is read once, when it is needed."""

    configMapKeyRef: Annotated[KeyRef | None, Field(description="A key of a ConfigMap in this namespace.")] = None
    secretKeyRef: Annotated[
        KeyRef | None,
        Field(description="A key of a Secret in this namespace. The operator must be allowed to read Secrets."),
    ] = None

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule(
                "has(self.configMapKeyRef) != has(self.secretKeyRef)",
                "write one of configMapKeyRef and secretKeyRef, each {name, key}",
            )
        )
    }
