"""Whose key and address a run is made with: the provider that it asks for, and the one that it belongs to."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from openairun_operator.api.names import DEFAULT_PROVIDER
from openairun_operator.api.reasons import Reason
from openairun_operator.lifecycle.failure import Failure
from openairun_operator.lifecycle.run import Run

TIMEOUT: Final = timedelta(minutes=10)
POLLING_INTERVAL: Final = timedelta(seconds=5)
OWN: Final = "operator"
"""The name, in records and status, of the operator's own provider; the CRD lets no OpenAIProvider bear it."""
FOREIGN_IDS: Final = ("runID", "threadID", "conversationID", "previousResponseID")
"""Fields that name what may be somebody else's under a key that is shared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A provider as it is now. `name` is `OWN`, or that of an OpenAIProvider in the run's namespace."""

    name: str
    address: str
    """Where its requests go; empty if nobody knows, since the provider is not there."""
    credential: str | None = None
    """A mark of the key in use, which does not tell the key."""
    blocked: Failure | None = None
    """Why no call can be made at all, such as no credentials."""
    patience: Failure | None = None
    """Why nothing new is sent for the moment: the server asked for it."""
    api: Literal["Auto", "Responses", "Assistants"] = "Auto"
    """The API to which it is restricted."""
    own_ids_only: bool = False
    """Whether definitions may not name what exists at OpenAI already."""
    confirmed_only: bool = False
    """Whether only those runs are followed that status names too: who writes annotations may not use this key."""
    default_model: str | None = None
    timeout: timedelta = TIMEOUT
    polling_interval: timedelta = POLLING_INTERVAL
    create_settles: timedelta = timedelta(seconds=35)
    """How long after a create was sent it may still take effect: a search that finds nothing before is not final."""
    most_runs: int | None = None
    """How many runs may go at once; None: any number."""
    requests_per_minute: int | None = None
    """How often it may be asked; None: as often as one likes."""

    @property
    def said(self) -> str:
        """What a person calls it."""
        return "the operator's own provider" if self.name == OWN else f"OpenAIProvider {self.name}"


def lane(namespace: str, name: str) -> str:
    """The provider, among those of all namespaces: of one name in two namespaces there are two."""
    return name if name == OWN else f"{namespace}/{name}"


def asked_for(run: Run) -> str | None:
    """The OpenAIProvider that the definition names; None where it leaves it to the namespace's default."""
    return run.spec.providerRef.name if run.spec and run.spec.providerRef else None


def belongs_to_default(run: Run) -> bool:
    """Whether the namespace's default made the last run, or was shown to be waited for.

    That outlives its deletion: the operator's own is another server mostly, with another's money.
    """
    record, effective = run.record, run.status.effective
    return DEFAULT_PROVIDER in (record and record.provider, effective and effective.provider)


def deleted_default(namespace: str) -> Provider:
    """The namespace's default, of a run that belongs to it, while there is none."""
    message = (
        f"OpenAIProvider {DEFAULT_PROVIDER} in namespace {namespace}, to which this run belongs, was deleted: create it"
        " again, or name another in spec.providerRef. The operator's own key does not stand in for it"
    )
    blocked = Failure(reason=Reason.PROVIDER_NOT_FOUND, message=message)
    return Provider(name=DEFAULT_PROVIDER, address="", blocked=blocked)


def missing(name: str, namespace: str) -> Failure:
    """A provider that is named and not there."""
    message = f"There is no OpenAIProvider {name} in namespace {namespace}: create it. All goes on by itself then"
    return Failure(reason=Reason.PROVIDER_NOT_FOUND, message=message)


def no_provider(namespace: str) -> Failure:
    """The operator's own provider is not for this namespace."""
    message = (
        f"Namespace {namespace} has no OpenAIProvider called {DEFAULT_PROVIDER}, and the operator's own key is not for"
        f" this namespace: create one, or name one in spec.providerRef"
    )
    return Failure(reason=Reason.PROVIDER_NOT_FOUND, message=message)


def refusal(run: Run, provider: Provider) -> Failure | None:
    """Why `provider` does not take what the run asks for."""
    if provider.api not in ("Auto", run.api):
        message = (
            f"The run needs the {run.api} API, and {provider.said} is restricted to {provider.api} (spec.api): name"
            " another provider in spec.providerRef, or lift the restriction"
        )
        return Failure(reason=Reason.API_NOT_ALLOWED, message=message)
    named_ids = [f"spec.{field}" for field in FOREIGN_IDS if run.spec and getattr(run.spec, field)]
    if provider.own_ids_only and named_ids:
        message = (
            f"{' and '.join(named_ids)} may not be set under the operator's own key, which others share"
            " (--forbid-foreign-ids): use an OpenAIProvider with a key of your own"
        )
        return Failure(reason=Reason.ID_NOT_ALLOWED, message=message)
    return None
