"""One resource, driven as its user would, while an operator may die at any moment."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import kubernetes
import urllib3
import verdict
from ground import Ground
from runs import BOTH, run
from verdict import Verdict
from waiting import wait_until

T = TypeVar("T")

_STARTING = (403, 404, 429, 500, 503, 504)
"""What an API server answers that is not ready yet: it knows no rights, and no resources of CRDs."""

PATIENCE = 60.0
"""Seconds until a resource counts as stuck. The longest wait that is right is that for a create without an answer."""
MARK = "definition"
"""The metadata key that tells the runs of one resource apart: which definition each was made for."""

_numbers = itertools.count(1)


class Life:
    """A resource from its creation to its end; `seen` is the last that was seen of it."""

    def __init__(self, ground: Ground, api: str) -> None:
        self.ground = ground
        self.api = api
        self.name = f"run-{next(_numbers)}"
        self.seen: dict[str, Any] = {}
        self.gone = False
        self.definitions = 0

    # What a user does

    def apply(self, script: str, **spec: Any) -> None:
        """Create it; `script` tells the stand-in how the run shall go."""
        own = {"threadID": f"thread_{self.name.replace('-', '')}"} if self.api == "Assistants" else {}
        body = run(self.name, {**BOTH[self.api], **own, **spec, "metadata": self._marked(script)})
        self.seen = through_outages(lambda: self.ground.create(body))

    def define(self, script: str) -> None:
        """Change the definition, which asks for another run."""
        metadata = self._marked(script)
        self.patch(instructions=f"Definition {metadata[MARK]}", metadata=metadata)

    def patch(self, **spec: Any) -> None:
        through_outages(lambda: self.ground.patch(self.name, {"spec": spec}))

    def delete(self) -> None:
        through_outages(lambda: self.ground.delete(self.name))

    def _marked(self, script: str) -> dict[str, str]:
        self.definitions += 1
        return {"standin": script, MARK: str(self.definitions)}

    # What a user sees

    @property
    def uid(self) -> str:
        return str(self.seen["metadata"]["uid"])

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.seen.get("status", {})
        return status

    def condition(self, type_: str) -> dict[str, Any]:
        return next((each for each in self.status.get("conditions", ()) if each["type"] == type_), {})

    @property
    def reason(self) -> str:
        return str(self.condition("Ready").get("reason", ""))

    @property
    def unknown(self) -> bool:
        """Whether the operator says that it does not know what came of a create."""
        return self.condition("CreateOutcomeUnknown").get("status") == "True"

    def is_settled(self) -> bool:
        """Whether nothing more is to come by itself."""
        current = self.status.get("observedGeneration") == self.seen["metadata"]["generation"]
        return current and (self.unknown or self.condition("Finished").get("status") == "True")

    def is_going(self) -> bool:
        return self.is_settled() or (bool(self.status.get("runID")) and self.reason == "Running")

    def asks(self) -> bool:
        return self.is_settled() or bool(self.status.get("requiredAction"))

    def look(self) -> None:
        """Read it once."""
        found = through_outages(lambda: self.ground.read(self.name))
        self.gone = found is None or found["metadata"]["uid"] != self.uid
        if found is not None and not self.gone:
            self.seen = found

    def wait(self, until: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
        """Read it until it is so, or it is gone. Raises AssertionError after `timeout` seconds."""

        def done() -> bool:
            self.look()
            return self.gone or until()

        wait_until(done, timeout, f"{self.name} to be {what}")

    def wait_gone(self, timeout: float = PATIENCE) -> None:
        self.wait(lambda: False, "gone", timeout)

    # What is judged

    def runs(self) -> list[dict[str, Any]]:
        """Its runs at OpenAI."""
        return [run for run in self.ground.openai.runs() if run["metadata"]["openairun_uid"] == self.uid]

    def judge(self, wanted: Mapping[str, int], required: Collection[str]) -> Verdict:
        """Now that it is at rest or gone: whether it had the runs that were wanted, and those that are required.

        None is required of what is gone, or says that it does not know.
        """
        runs = self.runs()
        ids = {run["id"] for run in runs}
        submits = [submit for submit in self.ground.openai.submits() if submit["run"] in ids]
        found = verdict.of_runs(runs, submits, wanted, () if self.gone or self.unknown else required)
        if not self.gone:
            found.losses += verdict.unnamed(runs, self.seen)
        found.unknown = int(self.unknown)
        return self._named(found)

    def judge_the_end(self) -> Verdict:
        """Now that it is gone."""
        events = through_outages(lambda: self.ground.events(self.uid))
        said = [*events, *(line for line in self.ground.logs.splitlines() if "Orphaned" in line)]
        return self._named(verdict.of_deletion(self.runs(), self.seen, said))

    def _named(self, found: Verdict) -> Verdict:
        found.prefix(f"{self.name} ({self.api}, {self.status.get('phase')}, {self.reason})")
        return found


def through_outages(ask: Callable[[], T], patience: float = PATIENCE) -> T:
    """The answer, once the API server is there to give it: it may be restarted meanwhile."""
    end = time.monotonic() + patience
    while True:
        try:
            return ask()
        except (urllib3.exceptions.HTTPError, OSError):
            if time.monotonic() > end:
                raise
        except kubernetes.client.ApiException as error:
            if error.status not in _STARTING or time.monotonic() > end:
                raise
        time.sleep(0.1)
