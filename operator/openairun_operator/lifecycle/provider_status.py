"""What an OpenAIProvider's status says: whether its key and address work, what they serve, and who uses them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from openairun_operator.api.provider import OpenAIProviderSpec, OpenAIProviderStatus
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API
from openairun_operator.api.status import Condition
from openairun_operator.lifecycle import text
from openairun_operator.lifecycle.conditions import condition
from openairun_operator.lifecycle.failure import NEEDS_PERSON, Failure

_Kind = Literal["ready", "retrying", "stalled"]


def status(
    spec: OpenAIProviderSpec | None,
    address: str,
    apis: Sequence[API],
    failure: Failure | None,
    counts: tuple[int, int],
    before: OpenAIProviderStatus,
    generation: int,
    now: datetime,
) -> OpenAIProviderStatus:
    """The status of a provider that was checked: `apis` are those that it serves, `failure` why it cannot be used."""
    failure = failure or _restricted(spec, address, apis)
    if failure is None:
        words = f"{address} takes the key, and serves {' and '.join(apis)}"
        conditions = _conditions("ready", Reason.AVAILABLE, words, before.conditions or [], generation, now)
    else:
        kind: _Kind = "stalled" if failure.reason in NEEDS_PERSON | {Reason.INVALID_SPEC} else "retrying"
        conditions = _conditions(
            kind, failure.reason, text.without_request(failure.message), before.conditions or [], generation, now
        )
    return OpenAIProviderStatus(
        observedGeneration=generation,
        address=address or None,
        apis=list(apis) or None,
        runsInFlight=counts[0],
        runsWaiting=counts[1],
        conditions=conditions,
    )


def _restricted(spec: OpenAIProviderSpec | None, address: str, apis: Sequence[API]) -> Failure | None:
    if spec is None or spec.api == "Auto" or spec.api in apis:
        return None
    message = (
        f"spec.api is {spec.api}, and {address} serves {' and '.join(apis)} alone: change spec.api or spec.baseURL"
    )
    return Failure(reason=Reason.API_NOT_SERVED, message=message)


def _conditions(
    kind: _Kind, reason: Reason, words: str, before: Sequence[Condition], generation: int, now: datetime
) -> list[Condition]:
    def make(type_: str, true: bool, message: str = "") -> Condition:
        return condition(before, type_, "True" if true else "False", reason, message, generation, now)

    return [
        make("Ready", kind == "ready", words),
        make("Reconciling", kind == "retrying"),
        make("Stalled", kind == "stalled", words if kind == "stalled" else ""),
    ]
