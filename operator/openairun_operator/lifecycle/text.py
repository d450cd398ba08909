"""Texts from outside, made fit for status, events and logs: no key, no control character, no excess."""

import base64
import html
import json
import re
from collections.abc import Collection, Iterable
from typing import Final
from urllib.parse import quote, quote_plus

from openairun_operator.api.status import MAX_MESSAGE

REDACTED: Final = "[redacted]"

# Keys as OpenAI makes them (`sk-…`, also quoted in part in its own errors as `sk-ab***yz`), and whatever
# stands behind the name of an authorization scheme.
_KEYS = re.compile(r"\b(?:sk|sess|ek|pk|rk)-[A-Za-z0-9_\-*.…]{4,}|(?i:\b(bearer|basic|api-key:)\s+)[^\s\"',;]+")

_REQUEST = re.compile(r" \(request id [^()]*\)$")

# C0 and C1 controls but tab and newline, the marks of direction (they reorder what a terminal shows), and lone
# surrogates, which no JSON encoder takes.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f\ud800-\udfff]")


def clean(text: str) -> str:
    """`text` without the characters that could steer a terminal; line ends become newlines."""
    return _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def forms(*secrets: str) -> tuple[str, ...]:
    """The ways in which others write `secrets`: as they are, in JSON, in a URL, in HTML, in Python and in Base64.

    They are searched for one by one: a pattern of them all takes time without end on a text that is made for it.
    """
    found: set[str] = set()
    for secret in secrets:
        found |= {secret, _in_line(secret)}
        if len(secret) >= _MIN_ENCODED:
            found |= _forms(secret)
            bare = secret.strip("\"'")  # quotes are often taken into a Secret by mistake, and left out by who reads it
            if len(bare) >= _MIN_ENCODED:
                found |= _forms(bare)
    return tuple(sorted(found - {""}, key=len, reverse=True))


_MIN_ENCODED: Final = 8
"""What is shorter is a dummy, and its other forms are too short to be told from anything else."""


def _forms(secret: str) -> set[str]:
    in_json = json.dumps(secret)[1:-1]
    jsons = {in_json, in_json.replace("/", "\\/")}
    # Go; and .NET, which writes the quotation mark so too.
    for unsafe, escaped in (("[<>&]", in_json), ("[<>&+'`\"]", secret.replace("\\", "\\\\"))):
        jsons.add(re.sub(unsafe, lambda match: f"\\u{ord(match[0]):04X}", escaped))
    in_html = html.escape(secret)
    htmls = {in_html, html.escape(secret, quote=False), in_html.replace("&#x27;", "&#39;").replace("&quot;", "&#34;")}
    data = secret.encode(errors="replace")
    found = {secret, repr(secret)[1:-1], quote(data), quote(data, safe=""), quote_plus(data), *jsons, *htmls}
    found |= {re.sub(r"%..|\\u....", lambda match: match[0].lower(), form) for form in found}
    found |= {json.dumps(form)[1:-1] for form in found}  # JSON as a text in JSON, as a call's arguments are
    return found | set(_base64(data))


def _base64(secret: bytes) -> Iterable[str]:
    """What Base64 has of `secret` wherever it begins in what is encoded, such as `user:secret`."""
    for before in range(3):
        data = bytes(before) + secret
        encoded = base64.b64encode(data)[-(-before * 8 // 6) : len(data) * 8 // 6].decode()
        yield encoded
        yield encoded.replace("+", "-").replace("/", "_")


def without(text: str, written: Collection[str]) -> str:
    """`text` without what is `written` in it, also where control characters or line ends hide it, which others take
    out later.
    """
    for form in written:
        text = text.replace(form, REDACTED)
    if _CONTROLS.search(text):
        plain = clean(text)
        if any(form in plain for form in written):
            return without(plain, written)
    if spaced := [form for form in written if " " in form]:
        line = _in_line(text)
        if any(form in line for form in spaced):
            return without(line, written)
    return text


def _in_line(text: str) -> str:
    return " ".join(text.split())


def redact(text: str, *secrets: str) -> str:
    """`text` without anything that looks like a key, and without each of `secrets` in any form."""
    text = without(text, forms(*(secret for secret in secrets if len(secret) >= 4)))
    return _KEYS.sub(lambda match: (match.group(1) + " " if match.group(1) else "") + REDACTED, text)


def message(text: str, *secrets: str) -> str:
    """`text` as one line of a message: clean, redacted, at most 1024 characters."""
    # Cleaned first: a key with a control character in it would not be known for one, and whole again thereafter.
    return cut(_in_line(redact(clean(text), *secrets)), MAX_MESSAGE)


def without_request(message: str) -> str:
    """`message` without the request's id at its end: what is said again and again must not differ by that."""
    return _REQUEST.sub("", message)


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
