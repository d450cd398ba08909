"""Workload identity: OpenAI takes the token of the operator's ServiceAccount, and gives a short-lived one of its own.

Not by the SDK's `workload_identity`: that sends a request that was answered 401 a second time, a create too; asks in a
thread, with a client and time-outs of its own; and fails when it cannot renew a token that is still good.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx2
from openai import APIStatusError, Omit, OpenAIError
from openai.auth import k8s_service_account_token_provider

from openairun_operator.api.reasons import Reason
from openairun_operator.lifecycle import text
from openairun_operator.lifecycle.failure import CallFailedError, Failure, Outcome
from openairun_operator.wires import errors
from openairun_operator.wires.calls import Answer, caller_of
from openairun_operator.wires.clients import Clients, Credentials

EXCHANGE: Final = "https://auth.openai.com/oauth/token"
_LONGEST: Final = 24 * 3600.0
"""Seconds that a token is used at most, whatever is said of it."""
_PASSING: Final = frozenset(
    {Reason.RATE_LIMITED, Reason.SERVER_ERROR, Reason.UNREACHABLE, Reason.TIMED_OUT, Reason.UNREADABLE_ANSWER}
)


async def exchange(
    clients: Clients, provider_id: str, service_account_id: str, file: Path, url: str = EXCHANGE
) -> tuple[str, float]:
    """A token, and for how many seconds it is good. `file` holds the ServiceAccount's. Raises CallFailedError."""
    try:
        subject = k8s_service_account_token_provider(file)["get_token"]()
    except OpenAIError as error:
        raise _failed(Reason.NO_CREDENTIALS, f"The operator has no token to exchange: {error}") from None
    body = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": subject,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "identity_provider_id": provider_id,
        "service_account_id": service_account_id,
    }
    credentials = Credentials(url, subject)  # as the key it is redacted; it is not sent as one
    try:
        caller = caller_of(clients, credentials, "Responses")
        headers = {"Authorization": Omit()}
        answer = await caller.call(
            lambda client: client.post(url, cast_to=httpx2.Response, body=body, options={"headers": headers})
        )
    except ValueError as error:
        raise _failed(Reason.INVALID_CREDENTIALS, f"In {file}: {error}", subject) from None
    except CallFailedError as error:
        raise _meant(error, url, file, subject) from None
    finally:
        clients.forget(credentials)
    return _token(answer, url)


def _token(answer: Answer, url: str) -> tuple[str, float]:
    token, lives = answer.text("access_token"), answer.body.get("expires_in")
    if token is None or isinstance(lives, bool) or not isinstance(lives, int | float) or not 0 < lives < math.inf:
        raise CallFailedError(
            replace(
                errors.unreadable(url, "no access_token in it, or no expires_in").failure, outcome=Outcome.NOT_CREATED
            )
        )
    return token, min(float(lives), _LONGEST)


def _meant(error: CallFailedError, url: str, file: Path, subject: str) -> CallFailedError:
    """What it means for runs: nothing was sent of them, so nothing was created, and none is lost or refused."""
    if error.failure.reason in _PASSING:
        return CallFailedError(replace(error.failure, outcome=Outcome.NOT_CREATED))
    said = error.failure.message
    if isinstance(error.__context__, APIStatusError):
        said = f"{error.__context__.status_code} {_description(error.__context__)}".strip()
    words = (
        f"{url} gives nothing for the token in {file}: {said}. Check --workload-identity, and what it names at OpenAI"
    )
    return _failed(Reason.INVALID_CREDENTIALS, words, subject)


def _description(error: APIStatusError) -> str:
    """What OAuth has a server say: a code, and mostly a text."""
    try:
        body = json.loads(error.response.text)
    except (ValueError, RecursionError):
        return ""
    named = [body.get(name) for name in ("error", "error_description")] if isinstance(body, dict) else []
    return ": ".join(each for each in named if isinstance(each, str))


def _failed(reason: Reason, words: str, *secrets: str) -> CallFailedError:
    return CallFailedError(Failure(reason=reason, message=text.message(words, *secrets)))
