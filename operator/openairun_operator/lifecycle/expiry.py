"""`spec.ttlAfterFinished`: a resource whose run is over deletes itself, but never what still has to be kept."""

from datetime import datetime

from openairun_operator.api import durations
from openairun_operator.api.reasons import Reason
from openairun_operator.api.status import OpenAIRunStatus
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle import storing
from openairun_operator.lifecycle.actions import Delete, Wait
from openairun_operator.lifecycle.run import Run


def next_step(run: Run, status: OpenAIRunStatus, now: datetime) -> Delete | Wait | None:
    """Delete it, or wait until it is time. None: it stays."""
    if run.spec is None or run.spec.ttlAfterFinished is None or status.finishedAt is None:
        return None
    if not st.says_finished(status) or _unknown(status) or storing.wanted(run, status):
        return None
    try:
        moment = status.finishedAt + durations.parse(run.spec.ttlAfterFinished)
    except OverflowError:
        return None
    if now < moment:
        return Wait(moment)
    return Delete(f"Deleted {run.spec.ttlAfterFinished} after its run was finished, as spec.ttlAfterFinished asks")


def _unknown(status: OpenAIRunStatus) -> bool:
    """Whether a run may exist that only this resource tells of."""
    condition = status.condition("CreateOutcomeUnknown")
    unknown = condition is not None and condition.status == "True"
    doubtful = (Reason.CREATE_OUTCOME_UNKNOWN, Reason.ORPHANED)
    return unknown or any(past.reason in doubtful for past in status.history or ())
