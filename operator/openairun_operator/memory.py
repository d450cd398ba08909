"""Memory that is free goes back to the kernel.

The C library keeps what a burst took, since more may be needed soon, and would do so for good.
"""

import asyncio
import ctypes
from typing import Final

_PERIOD: Final = 60.0
_TRIM: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""glibc alone has it."""


def give_back() -> None:
    """Give back what is free, wherever it lies. It takes some milliseconds."""
    if _TRIM:
        _TRIM(0)


async def keep_giving_back() -> None:
    """Again and again. Until cancelled."""
    while True:
        await asyncio.sleep(_PERIOD)
        give_back()
