"""Whether an address serves runs and takes the key, found out by two requests that cost nothing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx2
from openai import APIStatusError

from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API
from openairun_operator.lifecycle import text
from openairun_operator.lifecycle.failure import CallFailedError, Failure
from openairun_operator.wires.calls import ASSISTANTS_V2, Caller, caller_of
from openairun_operator.wires.clients import Clients, Credentials

_NO_RESPONSE: Final = "resp_openairun_check"
_ASKED: Final[Mapping[API, tuple[str, dict[str, int]]]] = {
    "Responses": (f"/responses/{_NO_RESPONSE}", {}),
    "Assistants": ("/assistants", {"limit": 1}),
}

_OF_THE_API: Final = (Reason.API_NOT_SERVED, Reason.INVALID_REQUEST, Reason.UNREADABLE_ANSWER)
"""What says no more than that this API is not served: an unknown path, a page where JSON is expected."""
_MAYBE_OF_THE_API: Final = (Reason.PERMISSION_DENIED, Reason.SERVER_ERROR)
"""What may hold for one API and not for the other. With any other failure the second request is spared."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found."""

    apis: frozenset[API]
    """The APIs that the address serves to this key."""
    failure: Failure | None
    """Why none is; None where one is."""


async def probe(clients: Clients, credentials: Credentials) -> Probe:
    """Ask the address for a response that cannot exist, and for its assistants. Raises ValueError as `wire` does."""
    served: set[API] = set()
    failures: list[Failure] = []
    for api in _ASKED:
        caller = caller_of(clients, credentials, api)
        try:
            if await _serves(caller):
                served.add(api)
        except CallFailedError as error:
            failures.append(error.failure)
            if error.failure.reason not in _MAYBE_OF_THE_API:
                break
    if served:
        return Probe(frozenset(served), None)
    neither = Failure(
        reason=Reason.API_NOT_SERVED,
        message=text.message(
            f"{caller.address} answers, and serves neither the Responses API nor the Assistants API."
            " Check the address (for OpenAI it ends in /v1)",
            credentials.key,
        ),
    )
    return Probe(frozenset(), next(iter(failures), neither))


async def _serves(caller: Caller) -> bool:
    """Whether the API is served. Raises CallFailedError where the answer does not tell."""
    path, query = _ASKED[caller.api]
    try:
        answer = await caller.call(
            lambda client: client.get(
                path,
                cast_to=httpx2.Response,
                options={"params": query, "headers": ASSISTANTS_V2 if query else {}},
            ),
            doing="create",  # so that of the 404s those for an unknown path are told apart
        )
    except CallFailedError as error:
        if error.failure.reason not in _OF_THE_API:
            raise
        return error.failure.reason is Reason.INVALID_REQUEST and caller.api == "Responses" and _of_responses(error)
    return "id" in answer.body if caller.api == "Responses" else isinstance(answer.body.get("data"), list)


def _of_responses(error: CallFailedError) -> bool:
    """Whether a refusal in OpenAI's form speaks of responses: many a server answers so for an unknown path too."""
    refusal = error.__context__
    try:
        said = json.loads(refusal.response.text)["error"]["message"] if isinstance(refusal, APIStatusError) else ""
    except (ValueError, RecursionError, LookupError, TypeError):
        return False
    return "response" in str(said).lower() or _NO_RESPONSE in str(said)
