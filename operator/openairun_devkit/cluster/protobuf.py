"""Requests in Kubernetes' protobuf: kubectl's `create namespace`, `create token` and their like know no other form.

Only requests, and only the fields that count; field numbers are those of the generated.proto files in k8s.io/api and
k8s.io/apimachinery. Answers are always JSON, which those clients accept as well.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from openairun_devkit.cluster.errors import ApiError

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"

Form = Literal["string", "strings", "int", "bool", "time", "map", "bytes map"] | dict[int, tuple[str, Any]]

_META: dict[int, tuple[str, Form]] = {
    1: ("name", "string"),
    2: ("generateName", "string"),
    3: ("namespace", "string"),
    5: ("uid", "string"),
    6: ("resourceVersion", "string"),
    11: ("labels", "map"),
    12: ("annotations", "map"),
    14: ("finalizers", "strings"),
}
_KINDS: dict[str, dict[int, tuple[str, Form]]] = {
    "Namespace": {},
    "ServiceAccount": {},
    "ConfigMap": {2: ("data", "map"), 3: ("binaryData", "bytes map"), 4: ("immutable", "bool")},
    "Secret": {2: ("data", "bytes map"), 3: ("type", "string"), 4: ("stringData", "map"), 5: ("immutable", "bool")},
    "TokenRequest": {2: ("spec", {1: ("audiences", "strings"), 4: ("expirationSeconds", "int")})},
    "SelfSubjectReview": {},
    "SelfSubjectAccessReview": {
        2: ("spec", {1: ("resourceAttributes", {1: ("namespace", "string"), 2: ("verb", "string")})})
    },
}


def decode(data: bytes) -> dict[str, Any]:
    """The object in a request's body, as its JSON would be. ApiError 415 for kinds that are not known here."""
    if not data.startswith(_MAGIC):
        raise ApiError(400, "BadRequest", "the body is not in Kubernetes' protobuf")
    unknown = dict(_fields(data[len(_MAGIC) :]))
    meta = {number: _text(value) for number, value in _fields(_bytes(unknown[1]))}
    kind = meta.get(2, "")
    if kind not in _KINDS:
        raise ApiError(415, "UnsupportedMediaType", f"the stand-in does not read {kind} in protobuf; send JSON")
    body = _message(_bytes(unknown.get(2, b"")), {1: ("metadata", _META), **_KINDS[kind]})
    body.setdefault("metadata", {})
    return {"apiVersion": meta.get(1, ""), "kind": kind, **body}


def _message(data: bytes, form: dict[int, tuple[str, Form]]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for number, value in _fields(data):
        if number not in form:
            continue
        name, kind = form[number]
        if isinstance(kind, dict):
            body[name] = _message(_bytes(value), kind)
        elif kind == "strings":
            body.setdefault(name, []).append(_text(value))
        elif kind in ("map", "bytes map"):
            entry = dict(_fields(_bytes(value)))
            part = _bytes(entry.get(2, b""))
            text = base64.b64encode(part).decode() if kind == "bytes map" else part.decode()
            body.setdefault(name, {})[_text(entry.get(1, b""))] = text
        elif kind == "time":
            body[name] = datetime.fromtimestamp(_number(dict(_fields(_bytes(value))).get(1, 0)), UTC).isoformat()
        elif kind in ("int", "bool"):
            body[name] = bool(value) if kind == "bool" else _number(value)
        elif value:  # an empty string is an absent one
            body[name] = _text(value)
    return body


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and raw values of the wire format (https://protobuf.dev/programming-guides/encoding/)."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
        elif wire == 2:
            size, position = _varint(data, position)
            yield number, data[position : position + size]
            position += size
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        else:
            raise ApiError(400, "BadRequest", f"wire type {wire} is unknown")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise ApiError(400, "BadRequest", "the body ends within a number")


def _bytes(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else b""


def _number(value: int | bytes) -> int:
    return value if isinstance(value, int) else 0


def _text(value: int | bytes) -> str:
    return _bytes(value).decode()
