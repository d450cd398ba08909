"""What keeps a run from being created: `cancel` and `suspend`, and `runID`, under which none is ever created."""

from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import Record
from openairun_operator.lifecycle import status as st
from openairun_operator.lifecycle.actions import Decision, Note, Wait
from openairun_operator.lifecycle.attempts import new_record, shown
from openairun_operator.lifecycle.conditions import ended, suspended
from openairun_operator.lifecycle.facts import Facts
from openairun_operator.lifecycle.phase import CANCELLED, PENDING
from openairun_operator.lifecycle.run import Run


def withheld(run: Run) -> bool:
    """Whether nothing may be created for this resource."""
    spec = run.spec
    return spec is None or spec.cancel or spec.suspend or spec.runID is not None


def cancel(run: Run, facts: Facts) -> Decision:
    """Note that this definition was cancelled before there was a run, so that nothing revives it."""
    return Decision(run.status, Note(new_record(run, facts, "cancelled")))


def cancelled(run: Run, record: Record, facts: Facts) -> Decision:
    """Over, until the definition is changed."""
    status = shown(run, record, facts)
    if st.says_finished(status):
        status = st.stamp(status, run, facts.now)
    else:
        moment = facts.now.replace(microsecond=0)
        verdict = ended(Reason.CANCELLED, "Cancelled before there was a run: spec.cancel was set")
        status = st.say(status, run, verdict, facts.now, phase=CANCELLED, cancelledAt=status.cancelledAt or moment)
    return Decision(status, Wait() if run.record_annotated else Note(record))


def suspend(run: Run, facts: Facts) -> Decision:
    """Hold the create back. A run that the next one replaces is over, and goes into history at once."""
    status = st.archive(run.status) if run.status.record or run.status.runID else run.status
    verdict = suspended("spec.suspend is set: no run is created until it is removed")
    fields = {"phase": PENDING, "api": run.api, "effective": st.awaiting(status, facts.wanted)}
    return Decision(st.say(status, run, verdict, facts.now, **fields), Wait())
