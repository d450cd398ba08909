"""CEL rules of a schema (`x-kubernetes-validations`), evaluated by Google's CEL.

Left out of what the API server knows: rules about changes (`oldSelf`), `messageExpression`, Kubernetes' own function
libraries, escaped property names, cost limits. A text counts up to its first NUL: the library's binding cuts it there.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

from cel_expr_python import cel

from openairun_devkit.cluster.errors import Cause
from openairun_devkit.cluster.schema import Schema, children

_OPTIONS = {"rule", "message", "fieldPath"}


@functools.cache
def _environment() -> cel.Env:
    return cel.NewEnv(variables={"self": cel.Type.DYN})


@functools.cache
def _compiled(rule: str) -> cel.Expression:
    return _environment().compile(rule)


def unsupported(schema: Schema, path: str = "") -> Iterator[str]:
    """The rules that would not be enforced here, or that do not compile."""
    for entry in schema.get("x-kubernetes-validations", ()):
        yield from (f"{path}: {option} of a rule" for option in entry if option not in _OPTIONS)
        try:
            _compiled(entry["rule"])
        except Exception as error:  # noqa: BLE001 - whatever the library raises, the rule is of no use
            yield f"{path}: rule {entry['rule']}: {error}"
    for name, sub in schema.get("properties", {}).items():
        yield from unsupported(sub, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(sub := schema.get(name), dict):
            yield from unsupported(sub, f"{path}.{name}")


def check(value: Any, schema: Schema, path: str = "") -> list[Cause]:
    """The rules that do not hold. Nulls have been dropped before, so that `has()` is False for them."""
    causes = [
        _cause(entry, value, path)
        for entry in schema.get("x-kubernetes-validations", ())
        if not _holds(entry["rule"], value)
    ]
    for part, sub, where in children(value, schema, path):
        causes += check(part, sub, where)
    return causes


def _holds(rule: str, value: Any) -> bool:
    result = _compiled(rule).eval(data={"self": value})
    # An error, such as a duration of no duration, is no True either.
    return result.type() == cel.Type.BOOL and result.value() is True


def _cause(entry: dict[str, str], value: Any, path: str) -> Cause:
    told = "" if isinstance(value, dict | list) else f"{json.dumps(value, ensure_ascii=False)}: "
    text = entry.get("message") or f"failed rule: {entry['rule']}"
    return Cause(path + entry.get("fieldPath", ""), "FieldValueInvalid", f"Invalid value: {told}{text}")
