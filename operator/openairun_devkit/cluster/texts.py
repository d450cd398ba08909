"""What the API server asks of ConfigMaps and Secrets (k8s.io/kubernetes/pkg/apis/core/validation)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

from openairun_devkit.cluster.errors import Cause

KEYS = (("", "configmaps"), ("", "secrets"))
_LARGEST = 1024 * 1024  # bytes of all values together; names of keys do not count (MaxSecretSize)
_KEY = "[-._a-zA-Z0-9]+"
_IMMUTABLE = "Forbidden: field is immutable when `immutable` is set"


def admit(body: dict[str, Any], old: dict[str, Any] | None) -> list[Cause]:
    """Take in `stringData`, in place; then what is wrong, also as a change of `old`."""
    written = body.pop("stringData", None) or {}
    if written:
        body["data"] = (body.get("data") or {}) | {
            key: base64.b64encode(text.encode()).decode() for key, text in written.items()
        }
    return [*_invalid(body), *(_changed(body, old) if old is not None and old.get("immutable") else ())]


def _invalid(body: dict[str, Any]) -> Iterator[Cause]:
    size = 0
    for name in ("data", "binaryData"):
        encoded = name == "binaryData" or body["kind"] == "Secret"
        for key, value in (body.get(name) or {}).items():
            size += len(base64.b64decode(value)) if encoded else len(value.encode())
            if not re.fullmatch(_KEY, key):
                text = (
                    f"Invalid value: \"{key}\": a valid config key must consist of alphanumeric characters, '-', '_' or"
                    f" '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '{_KEY}')"
                )
                yield Cause(f"{name}[{key}]", "FieldValueInvalid", text)
    if size > _LARGEST:
        where = "data" if body["kind"] == "Secret" else "[]"
        yield Cause(where, "FieldValueTooLong", f"Too long: may not be more than {_LARGEST} bytes")


def _changed(body: dict[str, Any], old: dict[str, Any]) -> Iterator[Cause]:
    if not body.get("immutable"):
        yield Cause("immutable", "FieldValueForbidden", _IMMUTABLE)
    for name in ("data", "binaryData"):
        if (body.get(name) or {}) != (old.get(name) or {}):
            yield Cause(name, "FieldValueForbidden", _IMMUTABLE)
