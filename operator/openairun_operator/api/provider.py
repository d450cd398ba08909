"""An OpenAIProvider: an address and a key that runs of its namespace use, and the bounds that hold for them."""

from typing import Annotated, Final, Literal

from pydantic import Field

from openairun_operator.api.base import Model
from openairun_operator.api.record import API
from openairun_operator.api.references import KeyRef, Source
from openairun_operator.api.rules import ATOMIC, ModelName, PollingInterval, Timeout, duration, rule, rules
from openairun_operator.api.status import BY_TYPE, Condition, ObservedGeneration

MOST: Final = 1_000_000
"""The most requests or runs that a bound may name."""

_LABEL: Final = "[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?"
_HOST: Final = rf"{_LABEL}(\\.{_LABEL})*\\.?"
_ADDRESS: Final = rf"""^https?://({_HOST}|\\[[0-9a-fA-F:.]+\\])(:[0-9]{{1,5}})?(/[!-"$->@-~]*)?$"""

Header = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        json_schema_extra=rules(
            rule(
                "self.matches('^[!-~]+$')", "write the id alone: printable ASCII without spaces, it is sent as a header"
            )
        ),
    ),
]
Bound = Annotated[int, Field(ge=1, le=MOST, json_schema_extra={"format": "int32"})]


class Azure(Model):
    """What Azure OpenAI wants beside an address and a key."""

    apiVersion: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            description="The version of Azure's API, such as v1 or 2025-04-01-preview: sent as api-version.",
            json_schema_extra=rules(
                rule(
                    "self.matches('^[a-zA-Z0-9._-]+$')",
                    "apiVersion is one such as v1 or 2025-04-01-preview: letters, digits, -, _ and . only",
                )
            ),
        ),
    ]
    authentication: Annotated[
        Literal["APIKey", "BearerToken"],
        Field(
            description="How the key is sent. APIKey: in the header api-key. BearerToken: it is a token of Microsoft"
            " Entra ID, sent in the header Authorization."
        ),
    ] = "APIKey"


class RateLimit(Model):
    """How often the server is asked."""

    requestsPerMinute: Annotated[
        Bound, Field(description="The most requests in a minute from this namespace to this address with this key.")
    ]
    burst: Annotated[
        Bound | None, Field(description="How many may be sent at once, where none were sent for some time.")
    ] = None


class Defaults(Model):
    """What holds for runs that do not say it themselves. It is fixed when a run is created."""

    model: Annotated[ModelName | None, Field(description="The model. Absent: the operator's default.")] = None
    pollingInterval: Annotated[
        PollingInterval | None,
        Field(description="How long to wait between two looks at a run. Absent: the operator's default, 5s."),
    ] = None
    timeout: Annotated[
        Timeout | None, Field(description="How long a run may take. Absent: the operator's default, 10m.")
    ] = None


class OpenAIProviderSpec(Model):
    """Where runs go, with which key, and how many of them."""

    baseURL: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=1024,
            description="The server's address: all that stands before /responses or /threads. Absent:"
            " https://api.openai.com/v1.",
            json_schema_extra=rules(
                rule(
                    f"self.matches('{_ADDRESS}')",
                    "baseURL is an http or https address such as https://api.openai.com/v1, without a user, ? or #",
                )
            ),
        ),
    ] = None
    apiKeySecretRef: Annotated[
        KeyRef,
        Field(
            description="The key of a Secret in this namespace that holds the API key. It may change at any time. For a"
            " server that takes no key: a Secret with any word."
        ),
    ]
    organization: Annotated[
        Header | None, Field(description="The organization at OpenAI that runs belong to. Absent: the key's own.")
    ] = None
    project: Annotated[
        Header | None, Field(description="The project at OpenAI that runs belong to. Absent: the key's own.")
    ] = None
    api: Annotated[
        Literal["Auto", "Responses", "Assistants"],
        Field(
            description="The APIs that runs may use here. Auto: those that the server serves. One of them: runs that"
            " need the other are refused; nothing is translated."
        ),
    ] = "Auto"
    azure: Annotated[Azure | None, Field(description="For Azure OpenAI. Absent: another server.")] = None
    caBundleFrom: Annotated[
        Source | None,
        Field(
            description="Certificates, as PEM, by which the server is known, instead of the public authorities. For a"
            " server with a certificate of a private authority."
        ),
    ] = None
    requestTimeout: Annotated[
        str | None,
        Field(
            max_length=16,
            description="How long one request may take, 1s to 10m. Absent: the operator's, 30s.",
            json_schema_extra=duration("requestTimeout", "1s", "10m", "30s or 1m"),
        ),
    ] = None
    rateLimit: Annotated[
        RateLimit | None, Field(description="How often the server is asked. Absent: 1,000 requests a minute.")
    ] = None
    maxConcurrentRuns: Annotated[
        Bound | None,
        Field(
            description="The most runs that go at once. More wait, Pending with reason ConcurrencyLimit, and go in the"
            " order in which they were created. Absent: no limit."
        ),
    ] = None
    defaults: Annotated[
        Defaults | None,
        Field(description="What holds for runs that do not say it themselves. A change touches no run that exists."),
    ] = None

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            rule(
                "!has(self.azure) || has(self.baseURL)",
                "azure needs baseURL: write the address of your resource, such as"
                " https://my-resource.openai.azure.com/openai/v1",
                "baseURL",
            )
        )
    }


class OpenAIProviderStatus(Model):
    """Whether runs can use it, and how many do."""

    observedGeneration: ObservedGeneration = -1
    address: Annotated[str | None, Field(description="The address that runs go to.")] = None
    apis: Annotated[
        list[API] | None,
        Field(description="The APIs that the server serves, as far as is known.", json_schema_extra=ATOMIC),
    ] = None
    runsInFlight: Annotated[int | None, Field(description="How many runs go.")] = None
    runsWaiting: Annotated[int | None, Field(description="How many runs wait for others to end.")] = None
    conditions: Annotated[
        list[Condition], Field(description="Ready, Reconciling and Stalled.", json_schema_extra=BY_TYPE)
    ] = Field(default_factory=list)

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, if there is one."""
        return next((c for c in self.conditions if c.type == type_), None)
