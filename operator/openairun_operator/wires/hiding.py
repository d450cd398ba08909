"""Secrets are taken out of what a server answers: nothing that it says may carry them on."""

import json
import re
from typing import Any, Final

from openairun_operator.lifecycle import text

_MIN_KEY: Final = 8
"""Shorter keys are dummies, which self-hosted servers take; their letters may be in any text."""
_NAMES: Final = frozenset({"id", "object", "type", "status", "thread_id", "call_id", "role"})
_WORD: Final = re.compile("[a-z]{1,15}(_[a-z]{1,15})*")
"""What the API's own names look like."""


class Hidden:
    """Secrets, in all their forms."""

    def __init__(self, *secrets: str) -> None:
        long = [secret for secret in secrets if len(secret) >= _MIN_KEY]
        self._anywhere = text.forms(*long)
        # Such a key is a dummy: what the API itself calls things must be left as it is.
        real = [secret for secret in long if not _WORD.fullmatch(secret)]
        self._in_names = self._anywhere if real == long else text.forms(*real)
        self._spaced = any(" " in form for form in self._anywhere)

    def taken_out(self, content: bytes) -> Any:
        """The value that `content`, which is JSON, has without them. Raises ValueError and RecursionError."""
        said = content.decode(json.detect_encoding(content), "surrogatepass")
        value = json.loads(said)
        return value if self._surely_not_in(said) else self._without(value)

    def _surely_not_in(self, said: str) -> bool:
        """Whether a search of the whole tells: nothing in it is escaped or hides what it is. So are most answers."""
        plain = "\\" not in said and not self._spaced and text.clean(said) == said
        return plain and not any(form in said for form in self._anywhere)

    def _without(self, value: Any) -> Any:
        match value:
            case str():
                return text.without(value, self._anywhere)
            case list():
                return [self._without(item) for item in value]
            case dict():
                return {
                    text.without(name, self._in_names): (
                        text.without(item, self._in_names)
                        if name in _NAMES and isinstance(item, str)
                        else self._without(item)
                    )
                    for name, item in value.items()
                }
            case _:
                return value
