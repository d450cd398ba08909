"""Errors as OpenAI answers them: ``{"error": {message, type, param, code}}``.

The shape is ``ErrorResponse`` of OpenAI's API description; the texts are those seen in public issue threads.
"""

from typing import Any


class APIError(Exception):
    """A request that OpenAI would refuse."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": type, "param": param, "code": code}}


_USUAL = {
    400: ("Bad request.", "invalid_request_error", None),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    403: ("You have insufficient permissions for this operation.", "invalid_request_error", None),
    404: ("Not found.", "invalid_request_error", None),
    408: ("Request timed out.", "timeout", None),
    429: ("Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request. Sorry about that!", "server_error", None),
    503: ("The engine is currently overloaded, please try again later.", "server_error", None),
}


def usual_body(status: int) -> dict[str, Any]:
    """The body that goes with a status where a fault names none."""
    fallback = (f"Stand-in error {status}.", "server_error" if status >= 500 else "invalid_request_error", None)
    message, type_, code = _USUAL.get(status, fallback)
    return APIError(status, message, type=type_, code=code).body


def wrong_key(authorization: str | None) -> APIError:
    """401, quoting the key in part: eight letters, stars, the last four."""
    scheme, _, key = (authorization or "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        return APIError(
            401,
            "You didn't provide an API key. You need to provide your API key in an Authorization header using "
            "Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
        )
    head, tail = (8, 4) if len(key) > 16 else (len(key) // 3, len(key) // 5)
    quoted = key[:head] + "*" * (len(key) - head - tail) + key[len(key) - tail :]
    return APIError(
        401,
        f"Incorrect API key provided: {quoted}. "
        "You can find your API key at https://platform.openai.com/account/api-keys.",
        code="invalid_api_key",
    )


def check_parameters(
    body: Any, *, known: frozenset[str], required: tuple[str, ...], minimum: dict[str, int]
) -> dict[str, Any]:
    """The body of a create request as an object, or the 400 that OpenAI answers.

    `minimum` names integers and the least each may be.
    """
    if not isinstance(body, dict):
        raise APIError(
            400,
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your "
            "HTTP library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)",
        )
    for name in body:
        if name not in known:
            raise APIError(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    for name in required:
        if body.get(name) is None:
            raise APIError(400, f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
    for name, least in minimum.items():
        if (value := body.get(name)) is not None and value < least:
            raise APIError(
                400,
                f"Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {value} instead.",
                param=name,
                code="integer_below_min_value",
            )
    _check_metadata(body.get("metadata") or {})
    if body.get("stream"):
        raise APIError(400, "The stand-in does not stream.", param="stream", code="standin_unsupported")
    return body


def _check_metadata(metadata: Any) -> None:
    """16 pairs, keys of 64 and values of 512 characters (``Metadata`` of OpenAI's API description)."""
    if not isinstance(metadata, dict):
        raise APIError(400, "Invalid type for 'metadata': expected an object.", param="metadata", code="invalid_type")
    if len(metadata) > 16:
        raise APIError(
            400,
            "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, "
            f"but got an object with {len(metadata)} properties instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, value in metadata.items():
        param = f"metadata.{key}"
        if not isinstance(value, str):
            raise APIError(400, f"Invalid type for '{param}': expected a string.", param=param, code="invalid_type")
        if len(key) > 64 or len(value) > 512:
            raise APIError(
                400,
                f"Invalid '{param}': string too long. Expected a key of at most 64 and a value of at most "
                f"512 characters, but got {len(key)} and {len(value)} instead.",
                param=param,
                code="string_above_max_length",
            )
