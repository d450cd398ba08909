"""What is needed of the world outside: who makes a run, and a wire to it."""

from typing import Protocol

from openairun_operator.api.record import API
from openairun_operator.buckets import Bucket
from openairun_operator.lifecycle.failure import Failure
from openairun_operator.lifecycle.provider import Provider
from openairun_operator.lifecycle.run import Run
from openairun_operator.wires.protocol import Wire


class Providers(Protocol):
    """All that runs can be made with."""

    def wanted(self, run: Run) -> Provider:
        """The provider of the next run."""
        ...

    def of(self, namespace: str, name: str) -> Provider:
        """The provider that a record names."""
        ...

    def where(self, namespace: str, name: str) -> tuple[str, str | None]:
        """The address and the mark of the key of the provider that a record names."""
        ...

    async def confirm(self, run: Run, name: str) -> bool:
        """Whether `name` is surely the provider that `run` asks for. Raises ClusterError."""
        ...

    def wire(self, namespace: str, name: str, api: API, *, ending: bool) -> Wire:
        """The wire to it for `api`; `ending` a run may use the last key there was. Raises CallFailedError."""
        ...

    def refused(self, namespace: str, name: str, failure: Failure) -> None:
        """A call to it failed."""
        ...

    def bucket(self, namespace: str, name: str) -> Bucket | None:
        """The rate of requests to it; None: any."""
        ...
