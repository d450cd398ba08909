"""What the API server answers when it does not do what was asked: metav1.Status, in its own words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

UNCHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete"
    " validation"
)


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that is wrong: metav1.StatusCause. `reason` is the field error's type, such as FieldValueInvalid."""

    field: str
    reason: str
    message: str

    @property
    def blocks_rules(self) -> bool:
        """Whether CEL rules are left out because of it (apiextensions' hasBlockingErr)."""
        blocking = ("NotSupported", "Required", "TooLong", "TooMany", "TypeInvalid")
        return self.reason.removeprefix("FieldValue") in blocking


class ApiError(Exception):
    """A refusal; `status()` is its metav1.Status."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details = details

    def status(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
        }
        if self.details is not None:
            body["details"] = self.details
        return body | {"code": self.code}


def _qualified(name: str, group: str) -> str:
    return f"{name}.{group}" if group else name


def details(group: str, kind: str, name: str) -> dict[str, Any]:
    """StatusDetails without what is empty."""
    return {key: value for key, value in (("name", name), ("group", group), ("kind", kind)) if value}


def not_found(group: str, plural: str, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{_qualified(plural, group)} "{name}" not found', details(group, plural, name))


def already_exists(group: str, plural: str, name: str) -> ApiError:
    message = f'{_qualified(plural, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details(group, plural, name))


def conflict(
    group: str,
    plural: str,
    name: str,
    why: str = "the object has been modified; please apply your changes to the latest version and try again",
) -> ApiError:
    message = f'Operation cannot be fulfilled on {_qualified(plural, group)} "{name}": {why}'
    return ApiError(409, "Conflict", message, details(group, plural, name))


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def invalid(group: str, kind: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """422, with one line for all causes."""
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    listed = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    told = details(group, kind, name) | {
        "causes": [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    }
    return ApiError(422, "Invalid", f'{_qualified(kind, group)} "{name}" is invalid: {listed}', told)
