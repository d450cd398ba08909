"""What an answer of OpenAI means, without a server."""

from typing import Any

import httpx2
import openai

from openairun_operator.api.record import API
from openairun_operator.lifecycle.failure import Failure
from openairun_operator.wires import errors

ADDRESS = "https://api.example/v1"
KEY = "sk-secret-0123456789"


def said(message: str, code: str | None = None) -> dict[str, Any]:
    """A body in OpenAI's own form."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def answered(
    status: int,
    body: dict[str, Any] | str = "",
    *,
    doing: errors.Doing = "create",
    api: API = "Responses",
    headers: dict[str, str] | None = None,
) -> Failure:
    """The failure of a call that was answered so; a text for a body is sent as it is."""
    content = {"text": body} if isinstance(body, str) else {"json": body}
    request = httpx2.Request("POST", ADDRESS)
    response = httpx2.Response(status, headers=headers, request=request, **content)
    return raised(openai.APIStatusError("refused", response=response, body=None), doing=doing, api=api)


def raised(error: Exception, *, doing: errors.Doing = "create", api: API = "Responses") -> Failure:
    """The failure of a call that raised `error`."""
    return errors.failed(error, api, ADDRESS, doing=doing, secrets=(KEY,)).failure
