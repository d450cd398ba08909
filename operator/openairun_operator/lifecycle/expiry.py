"""`spec.ttlAfterFinished`: a resource whose run is over deletes itself, but never what still has to be kept."""

from openairun_operator.api import durations
from openairun_operator.api.reasons import Reason
from openairun_operator.api.status import OpenAIRunStatus
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle import storing
from openairun_operator.lifecycle.actions import Delete, Disown, Wait
from openairun_operator.lifecycle.facts import Facts
from openairun_operator.lifecycle.run import Run


def next_step(run: Run, status: OpenAIRunStatus, facts: Facts) -> Delete | Disown | Wait | None:
    """Delete it, or wait until it is time. None: it stays."""
    if run.spec is None or run.spec.ttlAfterFinished is None or status.finishedAt is None:
        return None
    if not st.says_finished(status) or _unknown(status):
        return None
    lost = run.record is not None and storing.lost(run.record, status, facts)  # nothing is left to wait for
    if storing.wanted(run, status) and not lost:
        return None
    try:
        moment = status.finishedAt + durations.parse(run.spec.ttlAfterFinished)
    except OverflowError:
        return None
    if facts.now < moment:
        return Wait(moment)
    name = status.output.configMap if status.output else None
    if name and facts.known.disowned != name:  # it was written before there was a TTL, perhaps
        return Wait(facts.known.store_at) if facts.known.storing_pauses(facts.now) else Disown(name)
    return Delete(f"Deleted {run.spec.ttlAfterFinished} after its run was finished, as spec.ttlAfterFinished asks")


def _unknown(status: OpenAIRunStatus) -> bool:
    """Whether a run may exist that only this resource tells of."""
    doubtful = (Reason.CREATE_OUTCOME_UNKNOWN, Reason.ORPHANED)
    condition = status.condition("CreateOutcomeUnknown")
    unknown = condition is not None and condition.status == "True"
    ready = status.condition("Ready")
    unknown = unknown or (ready is not None and ready.reason in doubtful)
    return unknown or any(past.reason in doubtful for past in status.history or ())
