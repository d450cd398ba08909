"""What tests of several wires ask for."""

from collections.abc import AsyncIterator

import pytest

from openairun_operator.wires.clients import Clients


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    """Clients that are closed with the test."""
    clients = Clients(5)
    yield clients
    await clients.close()
