"""What stands elsewhere in the cluster: the texts that a definition refers to, and the ConfigMaps that hold answers."""

import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from openairun_operator.api.reasons import Reason
from openairun_operator.kube import outputs, references
from openairun_operator.kube.cluster import Cluster, ClusterError
from openairun_operator.lifecycle import creating, ending, storing, submitting, text
from openairun_operator.lifecycle.actions import Store
from openairun_operator.lifecycle.failure import Failure, retry_delay
from openairun_operator.lifecycle.observation import Call, Contents
from openairun_operator.store import Entry


class Elsewhere:
    """Reads and writes it. What came of that is put where the next decision sees it."""

    def __init__(self, cluster: Cluster, clock: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._clock = clock

    async def fetch(self, entry: Entry, *, results: bool) -> None:
        """Read what the definition and, for `results`, the tool outputs refer to.

        Raises ReferenceFailedError, and ClusterError for passing trouble.
        """
        run, spec = entry.run, entry.run.spec
        assert spec is not None
        calls: tuple[Call, ...] = ()
        if results and run.record and (seen := ending.seen(run.record, entry.known)):
            calls = seen.calls
        entry.known.contents = Contents(
            purpose=submitting.purpose(run, calls) if results else creating.purpose(run),
            read_at=self._clock(),
            # The input of a run that exists was sent with its create.
            input=await references.read(self._cluster, run.namespace, spec.inputFrom)
            if spec.inputFrom and not results
            else None,
            authorizations={
                tool.authorizationFrom: (
                    await references.read_secret(self._cluster, run.namespace, tool.authorizationFrom)
                ).strip()
                for tool in spec.tools or ()
                if tool.authorizationFrom
            },
            results={
                output.toolCallID: await references.read(self._cluster, run.namespace, output.outputFrom)
                for output in submitting.needed(run, calls)
                if output.outputFrom
            },
        )

    async def store(self, entry: Entry, action: Store) -> None:
        """Write the answer to its ConfigMap."""
        record, name, data = action.record, action.name, action.data
        mark, run = storing.checksum(data), entry.run
        writing = outputs.write(
            self._cluster,
            run,
            name,
            data,
            run_id=record.id or "",
            answer_id=record.followed or "",
            owned=action.owned,
            sha256=mark,
        )
        if await self._wrote(entry, writing):
            known = entry.known
            known.stored, known.left_out = (name, mark), action.left_out
            known.store_failure = known.store_at = None
            known.disowned = None if action.owned else name

    async def disown(self, entry: Entry, name: str) -> None:
        """Have the ConfigMap stay when the resource goes."""
        if await self._wrote(entry, outputs.disown(self._cluster, entry.run, name)):
            entry.known.disowned = name

    async def _wrote(self, entry: Entry, writing: Awaitable[None]) -> bool:
        """Whether the write to a ConfigMap succeeded; else it is tried again later."""
        try:
            await writing
        except outputs.OutputFailedError as error:
            failure = error.failure
        except ClusterError as error:
            failure = Failure(reason=Reason.OUTPUT_NOT_WRITTEN, message=text.message(str(error)))
        else:
            return True
        known = entry.known
        known.store_failures += 1
        known.store_failure = failure
        pause = retry_delay(failure, known.store_failures, random.random())
        known.store_at = self._clock() + timedelta(seconds=pause)
        return False
