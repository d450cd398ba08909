"""Patches: JSON merge patch (RFC 7396), JSON patch (RFC 6902), and a plain merge for server-side apply."""

from __future__ import annotations

import copy
from typing import Any


class PatchError(Exception):
    """The patch cannot be applied: a test failed, or a path leads nowhere."""


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396. As in the API server, nulls within lists' objects go too."""
    if not isinstance(patch, dict):
        return _without_nulls(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def is_plain(patch: Any) -> bool:
    """Whether a strategic merge patch means the same as a merge patch: no directives, no lists of objects."""
    if isinstance(patch, dict):
        return all(not key.startswith("$") and is_plain(value) for key, value in patch.items())
    return not (isinstance(patch, list) and any(isinstance(each, dict) for each in patch))


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902. Raises PatchError, and then nothing has changed."""
    document = copy.deepcopy(target)
    if not isinstance(operations, list):
        raise PatchError("not a list of operations")
    for operation in operations:
        try:
            document = _apply(document, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise PatchError(f"{operation}: {error!r}") from error
    return document


def _apply(document: Any, operation: dict[str, Any]) -> Any:
    verb, path = operation["op"], operation["path"]
    if verb == "test":
        try:
            found = _get(document, path)
        except KeyError:  # the API server takes what is absent for null
            found = None
        if not _same(found, operation.get("value")):
            raise PatchError(f"testing value {path} failed")
        return document
    if verb in ("add", "replace"):
        return _put(document, path, copy.deepcopy(operation["value"]), replace=verb == "replace")
    if verb == "remove":
        return _remove(document, path)
    if verb in ("copy", "move"):
        value = copy.deepcopy(_get(document, operation["from"]))
        if verb == "move":
            document = _remove(document, operation["from"])
        return _put(document, path, value, replace=False)
    raise PatchError(f"unknown operation {verb}")


def _same(one: Any, other: Any) -> bool:
    """Equality in JSON, where true is not 1."""
    return one == other and isinstance(one, bool) is isinstance(other, bool)


def _steps(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise ValueError(f"not a pointer: {path}")
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]


def _index(step: str, length: int) -> int:
    index = int(step)
    if not 0 <= index < length:
        raise IndexError(step)
    return index


def _descend(node: Any, step: str) -> Any:
    return node[_index(step, len(node))] if isinstance(node, list) else node[step]


def _get(document: Any, path: str) -> Any:
    for step in _steps(path):
        document = _descend(document, step)
    return document


def _put(document: Any, path: str, value: Any, *, replace: bool) -> Any:
    steps = _steps(path)
    if not steps:
        return value
    parent = document
    for step in steps[:-1]:
        parent = _descend(parent, step)
    last = steps[-1]
    if isinstance(parent, list):
        if replace:
            parent[_index(last, len(parent))] = value
        else:
            parent.insert(len(parent) if last == "-" else _index(last, len(parent) + 1), value)
    elif isinstance(parent, dict) and (not replace or last in parent):
        parent[last] = value
    else:
        raise KeyError(last)
    return document


def _remove(document: Any, path: str) -> Any:
    *steps, last = _steps(path)
    parent = document
    for step in steps:
        parent = _descend(parent, step)
    del parent[_index(last, len(parent)) if isinstance(parent, list) else last]
    return document
