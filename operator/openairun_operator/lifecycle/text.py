"""Texts from outside, made fit for status, events and logs: no key, no control character, no excess."""

import re
from typing import Final

from openairun_operator.api.status import MAX_MESSAGE

REDACTED: Final = "[redacted]"

# Keys as OpenAI makes them (`sk-…`, also quoted in part in its own errors as `sk-ab***yz`), and whatever
# stands behind the name of an authorization scheme.
_KEYS = re.compile(r"\b(?:sk|sess|ek|pk|rk)-[A-Za-z0-9_\-*.…]{4,}|(?i:\b(bearer|basic|api-key:)\s+)[^\s\"',;]+")

_REQUEST = re.compile(r" \(request id [^()]*\)$")

# C0 and C1 controls but tab and newline, the bidirectional overrides (they reorder what a terminal
# shows), and lone surrogates, which no JSON encoder takes.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    """`text` without the characters that could steer a terminal; line ends become newlines."""
    return _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def redact(text: str, *secrets: str) -> str:
    """`text` without anything that looks like a key, and without each of `secrets`."""
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, REDACTED)
    return _KEYS.sub(lambda match: (match.group(1) + " " if match.group(1) else "") + REDACTED, text)


def message(text: str, *secrets: str) -> str:
    """`text` as one line of a message: clean, redacted, at most 1024 characters."""
    # Cleaned first: a key with a control character in it would not be known for one, and whole again thereafter.
    line = " ".join(redact(clean(text), *secrets).split())
    return cut(line, MAX_MESSAGE)


def cut(text: str, most: int) -> str:
    """`text`, or its beginning with a mark that it is cut, in at most `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def brief(message: str, most: int) -> str:
    """`message` in at most `most` characters, of which the words are cut and not the request's id at the end."""
    found = _REQUEST.search(message)
    end = found.group() if found and len(found.group()) < most // 2 else ""
    return cut(message[: len(message) - len(end)], most - len(end)) + end


def cut_bytes(text: str, limit: int) -> str:
    """The longest beginning of `text` that takes at most `limit` bytes of UTF-8."""
    data = text.encode()
    return text if len(data) <= limit else data[:limit].decode(errors="ignore")
