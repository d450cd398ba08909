"""A status's difference as a JSON patch, the only kind of patch that can be made to depend on the object's uid."""

from collections.abc import Mapping
from typing import Any


def of_status(status: Mapping[str, Any], difference: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What makes of `status` what the merge patch `difference` makes of it. Fields of the status are replaced whole."""
    if not status:  # it may be absent, and then nothing can be added to it
        return [{"op": "add", "path": "/status", "value": _merged({}, difference)}]
    operations: list[dict[str, Any]] = []
    for key, value in difference.items():
        path = f"/status/{pointer(key)}"
        if value is not None:
            operations.append({"op": "add", "path": path, "value": _merged(status.get(key), value)})
        elif key in status:
            operations.append({"op": "remove", "path": path})
    return operations


def pointer(key: str) -> str:
    """`key` as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def _merged(value: Any, patch: Any) -> Any:
    """What the merge patch (RFC 7386) makes of `value`."""
    if not isinstance(patch, Mapping):
        return patch
    before = value if isinstance(value, Mapping) else {}
    kept = {key: part for key, part in before.items() if key not in patch}
    return kept | {key: _merged(before.get(key), part) for key, part in patch.items() if part is not None}
