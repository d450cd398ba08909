"""The digest of a run's definition: when it changes, a new run is made. So nothing else may change it.

It is taken over the defining fields as the API server returns them, never over a model's dump: an operator
that knows a new field, or a new default, must not see a new definition in an old object.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from openairun_operator.api.spec import DEFINING

VERSION: Final = "v1"


def _canonical(value: Any) -> Any:
    """1 equals 1.0, null equals absent; an empty list or string is a value."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {k: _canonical(v) for k, v in value.items() if v is not None}
        case list():
            return [_canonical(v) for v in value]
        case _:
            return value


def of(spec: Mapping[str, Any]) -> str:
    """The digest of the definition in `spec`, as read from the API server."""
    defining = {name: spec[name] for name in DEFINING if spec.get(name) is not None}
    text = json.dumps(_canonical(defining), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"{VERSION}:{hashlib.sha256(text.encode()).hexdigest()}"


def known(recorded: str) -> bool:
    """Whether a recorded digest is of this version, so that it can be compared."""
    return recorded.startswith(f"{VERSION}:")


def differs(recorded: str, now: str) -> bool:
    """Whether the definition changed. A digest of an unknown version says nothing, so: no."""
    return known(recorded) and recorded != now
