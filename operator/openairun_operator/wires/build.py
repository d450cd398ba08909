"""The wires of one operator: from credentials to the wire that a run needs."""

from collections.abc import Callable

from openairun_operator.api.record import API
from openairun_operator.wires.assistants import Assistants
from openairun_operator.wires.calls import caller_of
from openairun_operator.wires.clients import Clients, Credentials
from openairun_operator.wires.protocol import Wire
from openairun_operator.wires.responses import Responses


def wire(api: API, clients: Clients, credentials: Credentials, spend: Callable[[], None] | None = None) -> Wire:
    """The wire for one action over `api` with these credentials. Raises ValueError as `Clients.client` does.

    An action is mostly one request; each one beyond the first calls `spend`.
    """
    caller = caller_of(clients, credentials, api, spend)
    return Assistants(caller) if api == "Assistants" else Responses(caller)
