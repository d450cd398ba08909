"""What an exception of the SDK means. The rules are those of OpenAI's guide to error codes.

A create or a submit counts as not made when the connection was never made, or the answer is a complete 4xx other
than 408, or a 503 in OpenAI's own form. Anything else may have taken effect.
"""

import json
import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal

import aiohttp
import httpx2
import openai

from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API
from openairun_operator.api.status import MAX_MESSAGE
from openairun_operator.lifecycle import text
from openairun_operator.lifecycle.failure import CallFailedError, Failure, Outcome
from openairun_operator.wires.guard import AddressRefusedError

Doing = Literal["look", "optional", "create", "submit"]
"""What a call is for: to look, to make a run, or to give it its results. `optional`: to cancel, or to list messages,
which not every server has.
"""

_BUSY: Final = re.compile(r"conversation_locked|already has an active run|conversation is locked", re.IGNORECASE)
_OF_URL: Final = re.compile(
    r"invalid url|(?:unknown|unrecognized) request url|\broutes?\b"
    r"|^(?:404:? )?(?:(?:resource|page|file) )?not found[.!]?$",
    re.IGNORECASE,
)
"""What servers say of a URL that they do not know. Azure's gateway (resource), Ollama (page), llama.cpp (file) and vLLM
do not even name it.
"""
_MODEL: Final = frozenset({"model_not_found", "model_not_available"})
_QUOTA: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_MAX_RETRY_AFTER: Final = 600.0
_MAX_END: Final = 300
"""Characters of a message that are kept for what to do and the request's id, however much the server says."""

ASSISTANTS_NOT_SERVED: Final = (
    "{address} answered {status}: it does not serve the Assistants API, which OpenAI ended on 2026-08-26, or does"
    " not know this thread. At OpenAI, replace assistantID and threadID by input, model and instructions; else point"
    " the provider to a server that still serves the Assistants API, and check threadID"
)
RESPONSES_NOT_SERVED: Final = (
    "{address} answered {status}: it does not serve the Responses API. Check the provider's address (for OpenAI it ends"
    " in /v1)"
)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what it was raised from; not what was being handled meanwhile, such as another call's failure."""
    while error is not None:
        yield error
        error = error.__cause__


def never_connected(error: BaseException) -> bool:
    """Whether the connection surely was not made, so that nothing was sent.

    Judged by aiohttp's own exception: the SDK's aiohttp transport calls every connection error, a reset after
    sending included, a ConnectTimeout.
    """
    chain = list(_chain(error))
    transport = [e for e in chain if isinstance(e, aiohttp.ClientError)]
    if transport:
        return any(
            isinstance(e, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL)
            for e in transport
        )
    return any(isinstance(e, httpx2.UnsupportedProtocol | httpx2.InvalidURL | httpx2.PoolTimeout) for e in chain)


def _timed_out(error: BaseException) -> bool:
    """Whether time ran out; for the reason given in `never_connected` that is aiohttp's own word too."""
    chain = list(_chain(error))
    transport = [e for e in chain if isinstance(e, aiohttp.ClientError)]
    return any(isinstance(e, TimeoutError | openai.APITimeoutError) for e in transport or chain)


def _is_page(error: openai.APIStatusError) -> bool:
    """Whether the answer is a text that is no JSON: a page of something between us and the API."""
    said = error.response.text
    try:
        json.loads(said)
    except (ValueError, RecursionError):
        return bool(said)
    return False


def _body(error: openai.APIStatusError) -> dict[str, Any]:
    """The `error` object of the answer; empty where the answer is not in OpenAI's form.

    SGLang, and vLLM before, send it bare. Only a 404 is read so: a bare 503 may come of what is in between.
    """
    try:
        body = json.loads(error.response.text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(body, dict):
        return {}
    bare = error.status_code == 404 and body.get("object") == "error"
    inner = body if bare else body.get("error")
    return inner if isinstance(inner, dict) else {}


def _retry_after(error: openai.APIStatusError) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `Retry-After`, in seconds or as a date; at most ten minutes."""
    headers = error.response.headers
    for header, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            value = float(headers.get(header, "")) / unit
        except ValueError:
            continue
        if value >= 0:
            return min(value, _MAX_RETRY_AFTER)
    try:
        value = parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - time.time()
    except (TypeError, ValueError, IndexError, OverflowError, OSError):
        return None
    return min(value, _MAX_RETRY_AFTER) if value >= 0 else None


def _names_what_is_missing(body: dict[str, Any]) -> bool:
    """Whether a 404 speaks of a thing, such as a run or a conversation; else it comes of a URL that something in
    between, or the server, does not know.
    """
    said = str(body.get("message") or "").strip()
    return bool(said) and not _OF_URL.search(said)


def _reason(status: int, body: dict[str, Any], api: API, *, doing: Doing, is_page: bool) -> Reason:
    code = str(body.get("code") or body.get("type") or "")
    said = f"{code} {body.get('message') or ''}"
    if status in (400, 409) and _BUSY.search(said):
        return Reason.BUSY
    match status:
        case 401:
            return Reason.INVALID_CREDENTIALS
        case 400 | 403 | 404 if code in _MODEL:
            return Reason.MODEL_NOT_ACCESSIBLE
        case 403:
            return Reason.PERMISSION_DENIED
        case 402:
            return Reason.QUOTA_EXCEEDED
        case 404 if doing != "create":
            if _names_what_is_missing(body):
                return Reason.NOT_FOUND
            return Reason.REFUSED if doing == "optional" and not is_page else Reason.SERVER_ERROR
        case 429:
            return Reason.QUOTA_EXCEEDED if code in _QUOTA else Reason.RATE_LIMITED
        case 400 | 413 | 415 | 422 | 431:
            return Reason.REFUSED if doing in ("look", "optional") else Reason.INVALID_REQUEST
        # OpenAI answers every call over the Assistants API with 404 now: there it speaks of the API.
        case 404 if api == "Responses" and _names_what_is_missing(body):
            return Reason.INVALID_REQUEST
        case 404 | 405 | 410 if doing == "create":
            return Reason.API_NOT_SERVED
        case _ if status < 400:
            return Reason.API_NOT_SERVED
        case 408 | 504:
            return Reason.TIMED_OUT
        case _:
            return Reason.SERVER_ERROR if status >= 500 else Reason.REFUSED


def _outcome(status: int, body: dict[str, Any]) -> Outcome:
    if (400 <= status < 500 and status != 408) or (status == 503 and body) or 300 <= status < 400:
        return Outcome.NOT_CREATED
    return Outcome.UNKNOWN


def _of_status(
    error: openai.APIStatusError, api: API, address: str, *, doing: Doing, secrets: tuple[str, ...]
) -> Failure:
    status, body = error.status_code, _body(error)
    reason = _reason(status, body, api, doing=doing, is_page=_is_page(error))
    said = str(body.get("message") or "") or (error.response.reason_phrase or "no reason given")
    words = f"OpenAI said {status}: {said}" if body else f"{address} answered {status}: {said}"
    if reason is Reason.API_NOT_SERVED:
        template = ASSISTANTS_NOT_SERVED if api == "Assistants" else RESPONSES_NOT_SERVED
        words = template.format(address=address, status=status) + (f". It said: {said}" if body else "")
    advice = {
        Reason.INVALID_REQUEST: "Change spec.toolOutputs" if doing == "submit" else "Change the definition",
        Reason.INVALID_CREDENTIALS: "Give the provider a valid key",
        Reason.PERMISSION_DENIED: "Give the key's project the right to do this",
        Reason.QUOTA_EXCEEDED: "Add credit, or raise the project's limit",
        Reason.MODEL_NOT_ACCESSIBLE: "Name another model, or give the key's project access to it",
    }.get(reason)
    request = f"(request id {error.request_id})" if error.request_id else ""
    return Failure(
        reason=reason,
        message=_message(words, advice, request, secrets),
        outcome=_outcome(status, body),
        retry_after=_retry_after(error),
    )


def _message(words: str, advice: str | None, request: str, secrets: tuple[str, ...]) -> str:
    """All of it as one message. Of words that are too long the end goes, not what to do, nor the request's id."""
    said = text.message(words, *secrets)
    end = text.message(" ".join(filter(None, (advice, request))), *secrets)[:_MAX_END]
    stop = "." if advice and not said.endswith((".", "!", "?")) else ""
    end = f"{stop} {end}" if end else ""
    return text.cut(said, MAX_MESSAGE - len(end)) + end


class TooLargeError(Exception):
    """An answer that is longer than any that is read."""


def failed(error: Exception, api: API, address: str, *, doing: Doing, secrets: tuple[str, ...]) -> CallFailedError:
    """What `error` means, for a call over `api` to `address`. `secrets` must not show in what is said of it."""
    if isinstance(error, openai.APIStatusError):
        return CallFailedError(_of_status(error, api, address, doing=doing, secrets=secrets))
    chain = list(_chain(error))
    if refused := next((each for each in chain if isinstance(each, AddressRefusedError)), None):
        words = text.message(str(refused), *secrets)
        return CallFailedError(Failure(reason=Reason.ADDRESS_REFUSED, message=words))
    if isinstance(chain[-1], TooLargeError):
        return unreadable(address, str(chain[-1]), *secrets)
    if _timed_out(error) and not never_connected(error):
        failure = Failure(reason=Reason.TIMED_OUT, message=f"{address} did not answer in time", outcome=Outcome.UNKNOWN)
    elif isinstance(error, openai.APIConnectionError | httpx2.HTTPError | aiohttp.ClientError | OSError):
        words = f"{address} cannot be reached: {type(chain[-1]).__name__}: {chain[-1]}"
        outcome = Outcome.NOT_CREATED if never_connected(error) else Outcome.UNKNOWN
        failure = Failure(reason=Reason.UNREACHABLE, message=text.message(words, *secrets), outcome=outcome)
    else:
        words = f"{address} gave an answer that cannot be read: {type(error).__name__}"
        failure = Failure(
            reason=Reason.UNREADABLE_ANSWER, message=text.message(words, *secrets), outcome=Outcome.UNKNOWN
        )
    return CallFailedError(failure)


def unreadable(address: str, what: str, *secrets: str) -> CallFailedError:
    """The answer is complete, and is not what the API promises. `secrets` must not show in `what`."""
    return CallFailedError(
        Failure(
            reason=Reason.UNREADABLE_ANSWER,
            message=text.message(f"{address} gave an answer that cannot be read: {what}", *secrets),
            outcome=Outcome.UNKNOWN,
        )
    )
