"""The one small interface to the outside world that every API is put behind."""

from datetime import datetime
from typing import Protocol

from openairun_operator.api.record import API
from openairun_operator.lifecycle.observation import CreateRequest, RunObservation, RunRef, SubmitRequest


class Wire(Protocol):
    """One API. Every method raises CallFailedError, and nothing else, when the call did not succeed."""

    @property
    def api(self) -> API:
        """The API that this is."""
        ...

    @property
    def searchable(self) -> bool:
        """Whether `find` can tell that a run does not exist."""
        ...

    async def create(self, request: CreateRequest) -> RunObservation:
        """Create a run. Sends one request, never repeated; the failure says whether a run may exist."""
        ...

    async def observe(self, ref: RunRef) -> RunObservation:
        """Read the run. Must not change anything."""
        ...

    async def cancel(self, ref: RunRef) -> RunObservation:
        """Ask for the run's end and say how it stands then. A finished run is no error and is left as it is."""
        ...

    async def submit(self, request: SubmitRequest) -> RunObservation:
        """Give the run the results it waits for. Sends one request, never repeated; the failure says whether it may
        have taken effect. The answer is the run, or the response that carries it on.
        """
        ...

    async def find(self, thread: str | None, token: str, since: datetime) -> RunObservation | None:
        """The run that bears `token`, created at `since` or later; None if there is none.

        Must not be called where `searchable` is False.
        """
        ...
