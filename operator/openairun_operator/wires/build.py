"""The wires of one operator: from credentials to the wire that a run needs."""

from openairun_operator.api.record import API
from openairun_operator.wires.assistants import Assistants
from openairun_operator.wires.calls import Caller
from openairun_operator.wires.clients import Clients, Credentials
from openairun_operator.wires.protocol import Wire
from openairun_operator.wires.responses import Responses


def wire(api: API, clients: Clients, credentials: Credentials) -> Wire:
    """The wire for `api` with these credentials. Raises ValueError for a key that cannot be sent."""
    caller = Caller(clients.client(credentials), api, clients.timeout(credentials))
    return Assistants(caller) if api == "Assistants" else Responses(caller)
