"""Who claims, or claimed and has not sent: few at once, for the sake of an operator that is killed.

To the one that comes next, what was claimed and not sent is a create without an answer.
"""

from collections.abc import Callable
from typing import Final

_AT_ONCE: Final = 8
"""As many as keep the API server busy: each takes two writes, and there are more connections to it."""


class Claims:
    """Places to claim in, by uid. A place ends with the work on its resource, if not before; a turn always comes."""

    def __init__(self, wake: Callable[[str], None]) -> None:
        """`wake` is called with a uid that waited, and has a place now."""
        self._wake = wake
        self._places: set[str] = set()
        self._line: dict[str, None] = {}

    def enter(self, uid: str) -> bool:
        """Take a place. False: there is none, and the resource waits for one."""
        if uid in self._places:
            return True
        if len(self._places) < _AT_ONCE:
            self._places.add(uid)
            return True
        self._line[uid] = None
        return False

    def leave(self, uid: str) -> None:
        """It was sent, or is not going to be: the place is the next one's."""
        if uid not in self._places:
            return
        self._places.discard(uid)
        if self._line:
            following = next(iter(self._line))
            del self._line[following]
            self._places.add(following)
            self._wake(following)
