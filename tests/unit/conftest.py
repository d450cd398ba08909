"""What tests of several wires ask for, and where those of the bench find it."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from openairun_operator.wires.clients import Clients

# Last: `bench` is the fault bench's too, and here as there nobody imports it.
sys.path.append(str(Path(__file__).parents[1] / "bench"))


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    """Clients that are closed with the test."""
    clients = Clients(5)
    yield clients
    await clients.close()
