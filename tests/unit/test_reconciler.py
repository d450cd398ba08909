"""Acting: what the reconciler makes of a slow watch, of refused writes and of a world that changes meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from answers import answered, said
from reconciling import UID, Body, World
from test_scheduler import in_virtual_time

from openairun_operator import elsewhere, reconciler, store
from openairun_operator.api.names import FINALIZER, RECORD_ANNOTATION
from openairun_operator.api.reasons import Reason
from openairun_operator.kube.cluster import ClusterError, GoneError, RefusedError
from openairun_operator.lifecycle import phase
from openairun_operator.lifecycle.failure import Failure, Outcome
from openairun_operator.lifecycle.observation import Call, RunObservation, RunRef
from openairun_operator.lifecycle.run import Run, dump_record, parse
from openairun_operator.scheduler import TryAgainError

DELETING = {"deletionTimestamp": "2026-11-21T12:00:00Z"}


@pytest.fixture
async def world() -> World:
    return World()


@contextlib.asynccontextmanager
async def scheduled(world: World) -> AsyncIterator[None]:
    """The object is seen, and the scheduler works on it."""
    working = asyncio.create_task(world.reconciler.scheduler.run())
    world.reconciler.saw("ADDED", world.api.sent[0])
    try:
        yield
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def idle() -> None:
    """Let all go on that can without waiting."""
    for _ in range(50):
        await asyncio.sleep(0)


async def until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110 - a fake has no event to wait for
            await asyncio.sleep(0)


async def test_a_run_is_created_recorded_and_shown(world: World) -> None:
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    assert world.api.writes == ["hold", "status", "annotate", "status"]
    assert (world.status["runID"], world.status["phase"]) == ("resp_1", "Queued")
    assert len(world.wire.created) == 1


async def test_old_events_of_the_watch_change_nothing_while_the_run_goes(world: World) -> None:
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    await world.show(0, 1, 2, 3)
    assert len(world.wire.created) == 1
    assert world.status["runID"] == "resp_1"


async def test_old_events_of_the_watch_change_nothing_when_the_run_is_finished_and_forgotten(world: World) -> None:
    world.wire.status = "completed"
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    world.now = world.now.replace(second=30)
    await world.work()
    assert world.status["phase"] == "Completed"
    writes = list(world.api.writes)
    await world.show(*range(len(world.api.sent)))
    assert world.status["phase"] == "Completed"
    assert (world.api.writes, len(world.wire.created)) == (writes, 1)


async def test_old_events_of_a_deleted_resource_do_not_cancel_again(world: World) -> None:
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    deleting = world.api.change(lambda body: body["metadata"].update(deletionTimestamp="2026-11-21T12:00:00Z"))
    world.reconciler.saw("MODIFIED", deleting)
    await world.work()
    assert world.api.body is None
    await world.show(*range(len(world.api.sent) - 1))
    world.reconciler.saw("DELETED", deleting)
    await world.work()
    assert len(world.wire.cancelled) == 1


async def test_an_older_list_is_believed_only_when_ours_is_no_longer_fresh(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    entry = world.entry
    newest = entry.version.number
    world.reconciler.saw(None, world.api.sent[0])
    assert entry.version.number == newest
    monkeypatch.setattr(store, "_LIST_LAG", -1.0)
    world.reconciler.saw(None, world.api.sent[0])
    assert entry.version.number == 100
    await world.work()  # a conflict: what is older cannot be claimed
    assert len(world.wire.created) == 1


async def test_the_answer_to_a_write_does_not_hide_a_newer_version(world: World) -> None:
    write = world.api.write_status

    async def overtaken(run: Run, difference: Body) -> Body:
        answer = await write(run, difference)
        world.reconciler.saw("MODIFIED", world.api.change(lambda body: body["metadata"].update(labels={"team": "a"})))
        return answer

    world.api.write_status = overtaken  # type: ignore[method-assign]
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    assert world.entry.run.status.runID == "resp_1"
    assert world.entry.version.number == world.api.version


async def test_a_definition_changed_before_the_claim_is_never_sent_in_its_old_form(world: World) -> None:
    world.api.change(lambda body: body["spec"].update(input="new"))
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    assert world.wire.created == []
    await world.show(1)
    assert [request.spec.input for request in world.wire.created] == ["new"]


async def test_a_definition_changed_while_the_claim_is_shown_is_never_sent_in_either_form_twice(world: World) -> None:
    write = world.api.write_status

    async def edited(run: Run, difference: Body) -> Body:
        answer = await write(run, difference)
        if not world.wire.created:
            world.api.write_status = write  # type: ignore[method-assign]
            changed = world.api.change(lambda body: body["spec"].update(input="new"))
            world.reconciler.saw("MODIFIED", changed)
        return answer

    world.api.write_status = edited  # type: ignore[method-assign]
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    await world.work()
    assert [request.spec.input for request in world.wire.created] == ["new"]
    assert world.wire.cancelled == []


async def test_a_claim_whose_write_seemed_to_fail_is_known_not_to_be_sent(world: World) -> None:
    hold, failures = world.api.hold, 2

    async def landed_without_an_answer(run: Run, record: str) -> Body:
        nonlocal failures
        answer = await hold(run, record)
        failures -= 1
        if failures == 1:
            raise ClusterError("claim the run", None, "time-out")
        return answer

    world.api.hold = landed_without_an_answer  # type: ignore[method-assign]
    world.reconciler.saw("ADDED", world.api.sent[0])
    with pytest.raises(TryAgainError):
        await world.work()
    await world.work()  # claims anew: a conflict, since the first one landed
    await world.show(-1)
    assert world.status["runID"] == "resp_1"
    assert len(world.wire.created) == 1


@pytest.mark.parametrize("failures", [1, 3])
async def test_an_id_that_cannot_be_written_down_is_kept_until_it_can(world: World, failures: int) -> None:
    refuse_ids(world, failures)
    world.reconciler.saw("ADDED", world.api.sent[0])
    for _ in range(failures - 1):
        with pytest.raises(TryAgainError):  # so that no worker waits
            await world.work()
    await world.work()
    assert len(world.wire.created) == 1
    assert world.status["runID"] == "resp_1"


@pytest.mark.parametrize("change", [{}, DELETING], ids=["wanted", "deleted"])
async def test_an_id_that_could_not_be_written_down_is_when_the_operator_stops(
    world: World, monkeypatch: pytest.MonkeyPatch, change: Body
) -> None:
    monkeypatch.setattr(reconciler, "_CONFLICT_PAUSE", 0.001)
    refuse_ids(world, 4)
    world.reconciler.saw("ADDED", world.api.sent[0])
    with pytest.raises(TryAgainError):
        await world.work()
    world.reconciler.saw("MODIFIED", world.api.change(lambda body: body["metadata"].update(change)))
    await world.reconciler.drain(5)
    assert world.api.body is not None
    found = parse(world.api.body).record  # of the annotation, or of its mirror in status
    assert found is not None
    assert found.id == "resp_1"
    assert len(world.wire.created) == 1


async def test_a_run_whose_id_cannot_be_written_down_is_cancelled_when_its_resource_goes(world: World) -> None:
    refuse_ids(world, 99)
    world.wire.refuse_cancels = 1
    world.reconciler.saw("ADDED", world.api.sent[0])
    with pytest.raises(TryAgainError):
        await world.work()
    world.now += timedelta(minutes=30)
    world.reconciler.saw("MODIFIED", world.api.change(lambda body: body["metadata"].update(DELETING)))
    await world.work()
    world.now += timedelta(seconds=10)
    await world.work()
    assert [ref.id for ref in world.wire.cancelled] == ["resp_1", "resp_1"]
    assert world.api.body is None
    assert [event.reason for event in world.events] == ["Created", "Cancelled"]
    assert world.events[-1].message == "Run resp_1 was cancelled"


async def test_a_run_whose_id_cannot_be_written_down_is_cancelled_when_it_is_replaced(world: World) -> None:
    refuse_ids(world, 99)
    world.reconciler.saw("ADDED", world.api.sent[0])
    with pytest.raises(TryAgainError):
        await world.work()
    changed = world.api.change(lambda body: body.update(spec={"model": "m", "input": "another"}))
    world.reconciler.saw("MODIFIED", changed)
    with pytest.raises(TryAgainError, match="record the run"):
        await world.work()
    assert [ref.id for ref in world.wire.cancelled] == ["resp_1"]
    assert [request.spec.input for request in world.wire.created] == ["x", "another"]
    assert [past["runID"] for past in world.status["history"]] == ["resp_1"]


@pytest.mark.parametrize("change", [{"cancel": True}, {"timeout": "8s"}], ids=["cancel", "deadline"])
async def test_a_run_whose_id_cannot_be_written_down_is_cancelled_when_it_is_to_end(world: World, change: Body) -> None:
    refuse_ids(world, 99)
    world.reconciler.saw("ADDED", world.api.sent[0])
    with pytest.raises(TryAgainError):
        await world.work()
    assert world.status["runID"] == "resp_1"  # shown, though it is not recorded
    body = world.api.change(lambda body: body["spec"].update(change) or body["metadata"].update(generation=2))
    world.reconciler.saw("MODIFIED", body)
    world.now += timedelta(seconds=10)
    with pytest.raises(TryAgainError):
        await world.work()
    assert [ref.id for ref in world.wire.cancelled] == ["resp_1"]


async def test_what_is_said_to_be_gone_is_looked_for_before_its_run_is_cancelled(world: World) -> None:
    world.reconciler.saw("ADDED", world.api.sent[0])
    world.api.refuse = [GoneError("claim", 404, "a gateway's word")]
    with pytest.raises(TryAgainError, match="but it is there"):
        await world.work()
    await world.work()
    assert len(world.wire.created) == 1
    assert world.wire.cancelled == []


async def test_a_run_whose_resource_went_without_us_is_named_when_the_operator_stops(world: World) -> None:
    """The next operator knows nothing of it."""
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    world.wire.fail = [Failure(reason=Reason.SERVER_ERROR, message="away")] * 9
    gone = world.api.sent[-1]
    world.api.body = None
    world.reconciler.saw("DELETED", gone)
    await world.work()
    await world.reconciler.drain(1)
    assert [event.reason for event in world.events][-1] == "Orphaned"
    assert "run resp_1 may still go" in world.events[-1].message


async def test_a_create_of_unknown_outcome_stays_said_while_the_next_claim_is_refused(world: World) -> None:
    world.wire.fail = [Failure(reason=Reason.TIMED_OUT, message="no answer", outcome=Outcome.UNKNOWN)]
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    assert conditions(world)["CreateOutcomeUnknown"] == "True"
    world.api.refuse = [ClusterError("claim", 403, "no") for _ in range(2)]
    body = world.api.change(lambda body: body["spec"].update(input="y") or body["metadata"].update(generation=2))
    world.reconciler.saw("MODIFIED", body)
    for _ in range(2):
        with pytest.raises(TryAgainError):
            await world.work()
    assert world.status["conditions"][0]["reason"] == "RecordRefused"
    assert conditions(world)["CreateOutcomeUnknown"] == "True"


def conditions(world: World) -> dict[str, str]:
    return {each["type"]: each["status"] for each in world.status["conditions"]}


def refuse_ids(world: World, times: int) -> None:
    """Let the API server be away for the next records of ids."""
    annotate = world.api.annotate

    async def refused(run: Run, record: str) -> Body:
        nonlocal times
        if times:
            times -= 1
            raise ClusterError("record the run", 503, "away")
        return await annotate(run, record)

    world.api.annotate = refused  # type: ignore[method-assign]


async def test_a_new_list_means_that_the_api_server_is_there_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[str] = []
    monkeypatch.setattr(world.reconciler.scheduler, "retry", woken.append)
    world.reconciler.saw("ADDED", world.api.sent[0])
    assert woken == []
    world.reconciler.saw(None, world.api.sent[0])  # nothing new in it
    assert woken == [UID]


async def test_a_claim_that_the_server_does_not_take_creates_nothing_and_says_so(world: World) -> None:
    world.api.refuse = [RefusedError("claim the run", 422, "metadata.annotations: Too long")]
    world.reconciler.saw("ADDED", world.api.sent[0])
    pause = await world.work()
    assert world.wire.created == []
    assert world.status["conditions"][0]["reason"] == "RecordRefused"
    assert "annotations: Too long" in world.status["conditions"][0]["message"]
    assert pause is not None
    assert 200 < pause < 400
    world.now = world.now.replace(minute=10)
    await world.work()
    assert world.status["runID"] == "resp_1"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (422, "is invalid: metadata.annotations: Too long: may not be more than 262144 bytes"),
        (422, "is invalid: metadata.annotations: Too long: must have at most 262144 bytes"),
        (413, "Request entity too large: limit is 3145728"),
        (400, "etcdserver: request is too large"),
    ],
)
async def test_a_claim_that_is_too_long_is_told_where_to_make_room(world: World, status: int, words: str) -> None:
    world.api.refuse = [RefusedError("claim the run", status, f"{status} {words}")]
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    message = world.status["conditions"][0]["message"]
    assert "Make room in metadata.annotations" in message
    assert "webhook" not in message


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, 'admission webhook "labels.example" denied the request: no label team'),
        (422, "ValidatingAdmissionPolicy 'names' with binding 'b' denied request: no label team"),
    ],
)
async def test_a_claim_that_a_policy_denies_is_not_said_to_be_too_long(world: World, status: int, words: str) -> None:
    world.api.refuse = [RefusedError("claim the run", status, f"{status} {words}")]
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    message = world.status["conditions"][0]["message"]
    assert words in message
    assert "an admission webhook or policy" in message
    assert "Make room" not in message


FORBIDDEN = ClusterError("claim the run", 403, '403 openairuns.openairun.dev "run" is forbidden: cannot patch')


def refuse_claims(world: World, monkeypatch: pytest.MonkeyPatch, error: ClusterError = FORBIDDEN) -> None:
    async def hold(run: Run, record: str) -> Body:
        raise error

    monkeypatch.setattr(world.api, "hold", hold)


@pytest.mark.parametrize("error", [FORBIDDEN, ClusterError("claim the run", 500, "500 failed calling webhook")])
async def test_a_claim_that_fails_again_is_shown_and_tried_again_as_before(
    world: World, monkeypatch: pytest.MonkeyPatch, error: ClusterError
) -> None:
    refuse_claims(world, monkeypatch, error)
    world.reconciler.saw("ADDED", world.api.sent[0])
    with pytest.raises(TryAgainError, match="cannot claim the run"):
        await world.work()
    assert "conditions" not in world.status, "it may be a moment's trouble"
    for _ in range(3):
        with pytest.raises(TryAgainError, match="cannot claim the run"):
            await world.work()
    shown = {each["type"]: each for each in world.status["conditions"]}
    assert (shown["Synced"]["status"], shown["Ready"]["reason"]) == ("False", "RecordRefused")
    assert str(error) in shown["Ready"]["message"]
    assert world.status["phase"] == "Pending"
    assert world.api.writes == ["status"], "said once"
    assert world.wire.created == []
    monkeypatch.undo()
    await world.work()
    assert (world.status["runID"], len(world.wire.created)) == ("resp_1", 1)
    assert {each["type"]: each for each in world.status["conditions"]}["Synced"]["status"] == "True"


async def test_a_claim_that_fails_now_and_then_is_not_shown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.reconciler.saw("ADDED", world.api.sent[0])
    for _ in range(2):
        world.api.refuse = [ClusterError("claim the run", 500, "500 etcdserver: leader changed")]
        with pytest.raises(TryAgainError):
            await world.work()
        await world.work()
        world.reconciler.saw("MODIFIED", world.api.change(_change_definition))
    assert "RecordRefused" not in str(world.api.sent)


def _change_definition(body: Body) -> None:
    body["spec"]["input"] += "x"
    body["metadata"]["generation"] += 1


async def test_tool_outputs_whose_claim_fails_again_say_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def observe(ref: RunRef) -> RunObservation:
        call = Call(id="call_1", type="function", name="lookup", arguments="{}")
        return RunObservation(id=ref.id, status="requires_action", calls=(call,), at_rest=True)

    monkeypatch.setattr(world.wire, "observe", observe)
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    world.now += timedelta(minutes=1)
    await world.work()
    assert world.status["phase"] == "RequiresAction"
    refuse_claims(world, monkeypatch)
    given = {"toolOutputs": [{"toolCallID": "call_1", "output": "42"}]}
    world.reconciler.saw("MODIFIED", world.api.change(lambda body: body["spec"].update(given)))
    for _ in range(3):
        with pytest.raises(TryAgainError, match="cannot claim the run"):
            await world.work()
    shown = {each["type"]: each for each in world.status["conditions"]}
    assert (shown["Synced"]["reason"], shown["ActionRequired"]["reason"]) == ("RecordRefused", "RecordRefused")
    assert "The tool outputs cannot be sent" in shown["Synced"]["message"]
    assert world.status["phase"] == "RequiresAction"


async def test_a_claim_that_fails_is_tried_again_though_the_status_cannot_be_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_claims(world, monkeypatch)
    world.reconciler.saw("ADDED", world.api.sent[0])
    for _ in range(3):
        world.api.refuse = [ClusterError("write the status", 403, "403 forbidden")]
        with pytest.raises(TryAgainError, match="cannot claim the run"):
            await world.work()
    assert world.wire.created == []


async def test_a_bad_request_is_shown_in_openais_own_words_with_its_request_id(world: World) -> None:
    refused = answered(400, said("Unsupported value: 'temperature'."), headers={"x-request-id": "req_1"})
    world.wire.fail = [refused]
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    shown = {condition["type"]: condition for condition in world.status["conditions"]}
    words = "OpenAI said 400: Unsupported value: 'temperature'. Change the definition (request id req_1)"
    assert (shown["Ready"]["message"], shown["Stalled"]["message"]) == (words, words)
    assert (shown["Ready"]["reason"], shown["Finished"]["status"]) == ("InvalidRequest", "True")
    assert [event.message for event in world.events] == [words]


async def test_a_claim_leaves_room_for_the_id(world: World) -> None:
    sizes: list[int] = []
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    for body in world.api.sent:
        annotations = body["metadata"].get("annotations", {})
        sizes.append(len(annotations.get(RECORD_ANNOTATION, "")))
    claimed, recorded = max(sizes), sizes[-1]
    assert claimed >= recorded + 500


async def test_a_status_that_the_server_cuts_is_written_once(world: World) -> None:
    """An older CRD prunes fields that it does not know."""
    write = world.api.write_status

    async def pruned(run: Run, difference: Body) -> Body:
        return await write(run, {key: value for key, value in difference.items() if key != "effective"})

    world.api.write_status = pruned  # type: ignore[method-assign]
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    writes = len(world.api.writes)
    for _ in range(3):
        await world.work()
    assert len(world.api.writes) == writes


async def test_a_resource_that_goes_during_the_create_has_its_run_cancelled(world: World) -> None:
    world.wire.gate = asyncio.Event()
    world.reconciler.saw("ADDED", world.api.sent[0])
    working = asyncio.create_task(world.work())
    await world.wire.sending.wait()
    world.api.body = None  # somebody removed the finalizer, and deleted it
    world.wire.gate.set()
    await working
    assert [ref.id for ref in world.wire.cancelled] == ["resp_1"]
    assert list(world.reconciler._store) == []


async def cut_off(world: World) -> asyncio.Event:
    """The work on a run is cut off while its create is on its way; the answer is what the server waits for."""
    gate = world.wire.gate = asyncio.Event()
    world.reconciler.saw("ADDED", world.api.sent[0])
    working = asyncio.create_task(world.work())
    await world.wire.sending.wait()
    working.cancel()
    return gate


async def test_a_create_that_was_sent_is_waited_for_when_the_operator_stops(world: World) -> None:
    gate = await cut_off(world)
    draining = asyncio.create_task(world.reconciler.drain(5))
    await asyncio.sleep(0)
    gate.set()
    await draining
    assert world.api.body is not None
    assert '"id":"resp_1"' in world.api.body["metadata"]["annotations"][RECORD_ANNOTATION]


def test_a_stopping_operator_does_not_write_to_what_has_gone_again_and_again() -> None:
    """It took all the time that there was for others, and named its run nowhere."""

    async def main() -> None:
        world, loop = World(), asyncio.get_running_loop()
        gate = await cut_off(world)
        world.api.body = None
        gate.set()
        began = loop.time()
        await world.reconciler.drain(5)
        assert loop.time() - began < 1
        assert world.events[-1].reason == "Orphaned"
        assert "resp_1" in world.events[-1].message

    in_virtual_time(main())


async def test_claims_that_cannot_be_taken_back_do_not_make_a_stop_longer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = asyncio.Event()

    async def hangs(*_: object) -> Body:
        claimed.set()
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr(world.api, "write_status", hangs)
    monkeypatch.setattr(world.api, "annotate", hangs)
    monkeypatch.setattr(reconciler, "_LAST_WRITES", 0.1)
    world.reconciler.saw("ADDED", world.api.sent[0])
    working = asyncio.create_task(world.work())
    await claimed.wait()
    working.cancel()
    await asyncio.wait_for(world.reconciler.drain(0.1), 5)


def test_to_settle_and_to_drain_take_no_more_time_than_one_of_them() -> None:
    async def main() -> None:
        world, loop = World(), asyncio.get_running_loop()
        gate = await cut_off(world)
        began = loop.time()
        await world.reconciler.settle(0.5)
        await world.reconciler.drain(0.5)
        assert 0.4 < loop.time() - began < 0.9
        gate.set()

    in_virtual_time(main())


async def test_a_stopping_operator_takes_back_a_claim_that_it_has_not_sent(world: World) -> None:
    started, stuck = asyncio.Event(), asyncio.Event()

    async def slow(run: Run, difference: Body) -> Body:
        started.set()
        await stuck.wait()
        raise AssertionError

    world.api.write_status = slow  # type: ignore[method-assign]
    world.reconciler.saw("ADDED", world.api.sent[0])
    working = asyncio.create_task(world.work())
    await started.wait()
    working.cancel()
    await world.reconciler.drain(5)
    assert world.wire.created == []
    assert world.api.body is not None
    assert '"state":"released"' in world.api.body["metadata"]["annotations"][RECORD_ANNOTATION]


async def test_a_cancel_that_was_refused_is_sent_again(world: World) -> None:
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    world.wire.refuse_cancels = 1
    world.reconciler.saw(
        "MODIFIED", world.api.change(lambda body: body["metadata"].update(deletionTimestamp="2026-11-21T12:00:00Z"))
    )
    pause = await world.work()
    assert pause is not None
    assert 0.5 < pause < 3
    assert len(world.wire.cancelled) == 1
    world.now = world.now.replace(second=10)
    await world.work()
    assert len(world.wire.cancelled) == 2
    assert world.api.body is None


@pytest.mark.parametrize("trouble", [False, True])
async def test_a_clock_that_is_set_back_delays_no_look(world: World, trouble: bool) -> None:
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    world.now += timedelta(seconds=10)
    world.wire.fail = [Failure(reason=Reason.RATE_LIMITED, message="slow down", retry_after=60)] * trouble
    await world.work()
    looks = len(world.wire.observed)
    world.now -= timedelta(hours=1)
    pause = await world.work()
    assert len(world.wire.observed) == looks + 1
    assert pause is not None
    assert pause < 10


async def test_a_new_key_is_tried_at_once(world: World) -> None:
    denied = Failure(reason=Reason.INVALID_CREDENTIALS, message="no", outcome=Outcome.NOT_CREATED)
    world.wire.fail = [denied]
    world.reconciler.saw("ADDED", world.api.sent[0])
    pause = await world.work()
    assert pause is not None
    assert pause > 200
    assert world.status["conditions"][0]["reason"] == "InvalidCredentials"
    world.reconciler.provider_changed(None)
    await world.work()
    assert world.status["runID"] == "resp_1"


async def test_a_finished_resource_keeps_no_more_than_its_version(world: World) -> None:
    world.wire.status = "completed"
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    world.now = world.now.replace(second=30)
    await world.work()
    assert list(world.reconciler._store) == []
    assert world.api.body is not None
    assert FINALIZER not in world.api.body["metadata"].get("finalizers", [])
    # After a restart it is not even taken in.
    again = World()
    again.reconciler.saw(None, world.api.body)
    assert list(again.reconciler._store) == []


def counted(world: World, name: str, **labels: str) -> float:
    return world.metrics.registry.get_sample_value(name, labels) or 0.0


ENDS = ["completed", "failed", "incomplete", "expired", "completed\n\u202e" + "\xe9" * 5000]


@pytest.mark.parametrize("status", ENDS, ids=lambda status: status[:10])
async def test_a_run_that_was_over_when_it_was_to_be_cancelled_is_not_called_cancelled(
    world: World, status: str
) -> None:
    """A paid answer was reported as a cancel, and its tokens not at all. What the server calls it is not repeated."""
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    world.wire.status = status
    world.wire.cancel = world.wire.observe  # type: ignore[method-assign]
    world.reconciler.saw("MODIFIED", world.api.change(lambda body: body["metadata"].update(DELETING)))
    await world.work()
    assert world.api.body is None
    said = world.events[-1]
    how = phase.of(status)
    assert (said.type, said.reason) == ("Normal", how)
    words = f"Run resp_1 was over ({how}) when its resource was deleted: what it made is at OpenAI"
    assert said.message == words
    assert counted(world, "openairun_tokens_total", api="Responses", type="prompt") == 3 * (status == "completed")


async def test_of_a_run_that_was_shown_to_be_over_nothing_more_is_said_at_its_deletion(world: World) -> None:
    world.reconciler.saw("ADDED", world.api.sent[0])
    world.wire.status = "completed"
    await world.work()
    world.now += timedelta(seconds=10)
    await world.work()
    assert [event.reason for event in world.events] == ["Created", "Completed"]
    held = world.api.change(lambda body: body["metadata"].update(DELETING, finalizers=[FINALIZER]))
    world.reconciler.saw("MODIFIED", held)
    await world.work()
    assert world.api.body is None
    assert [event.reason for event in world.events] == ["Created", "Completed"]
    assert counted(world, "openairun_tokens_total", api="Responses", type="prompt") == 3


async def test_of_a_run_that_made_way_for_another_nothing_more_is_said_at_the_deletion(world: World) -> None:
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    world.wire.status = "completed"

    def another(body: Body) -> None:
        body["metadata"]["generation"] = 2
        body["spec"]["model"] = "another"

    world.wire.cancel = world.wire.observe  # type: ignore[method-assign]
    world.reconciler.saw("MODIFIED", world.api.change(another))
    world.confirms = False  # so that the next one waits
    await world.work()
    assert [past["runID"] for past in world.status["history"]] == ["resp_1"]
    said, used = list(world.events), counted(world, "openairun_tokens_total", api="Responses", type="prompt")
    assert used == 3
    held = world.api.change(lambda body: body["metadata"].update(DELETING))
    world.reconciler.saw("MODIFIED", held)
    await world.work()
    assert world.api.body is None
    assert world.events == said
    assert counted(world, "openairun_tokens_total", api="Responses", type="prompt") == used


async def test_a_finished_run_that_is_shown_as_going_is_put_right(world: World) -> None:
    """So might a write leave it that came late, of another operator."""
    world.reconciler.saw("ADDED", world.api.sent[0])
    world.wire.status = "completed"
    await world.work()
    world.now += timedelta(seconds=10)
    await world.work()
    going = next(body["status"]["conditions"] for body in world.api.sent if body["status"].get("phase") == "Queued")
    mixed = world.api.change(lambda body: body["status"].update(conditions=going))
    restarted = World()
    restarted.api, restarted.now = world.api, world.now
    actor = restarted.reconciler._actor
    restarted.reconciler._cluster = actor._cluster = actor.sender._cluster = world.api  # type: ignore[assignment]
    restarted.reconciler.saw(None, mixed)
    await restarted.work()
    shown = {condition["type"]: condition["status"] for condition in world.status["conditions"]}
    assert (shown["Finished"], shown["Succeeded"], shown["Ready"]) == ("True", "True", "True")


async def test_a_life_is_counted(world: World) -> None:
    world.wire.fail = [Failure(reason=Reason.RATE_LIMITED, message="slow down")]
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    world.now = world.now.replace(minute=1)
    await world.work()
    assert counted(world, "openairun_creates_total", api="Responses", outcome="not created") == 1
    assert counted(world, "openairun_errors_total", api="Responses", reason="RateLimited") == 1
    assert counted(world, "openairun_creates_total", api="Responses", outcome="created") == 1
    assert counted(world, "openairun_runs", phase="Queued", api="Responses") == 1
    world.wire.status = "completed"
    world.now = world.now.replace(minute=2)
    await world.work()
    assert counted(world, "openairun_polls_total", api="Responses") == 1
    assert counted(world, "openairun_runs", phase="Completed", api="Responses") == 1
    assert counted(world, "openairun_tokens_total", api="Responses", type="prompt") == 3
    assert counted(world, "openairun_tokens_total", api="Responses", type="completion") == 4


async def test_a_resource_that_nobody_attended_to_for_long_fails_the_probe(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.reconciler.saw("ADDED", world.api.sent[0])
    assert world.reconciler.stuck() is None
    due = asyncio.get_running_loop().time() - 3 * 5 - 30 - 61
    monkeypatch.setitem(world.reconciler.scheduler._due, UID, due)
    assert "team/run was due" in str(world.reconciler.stuck())


async def test_an_api_server_that_answers_nothing_does_not_fail_the_probe(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds stand in line for it, each for 15 s, and a new operator would stand there too."""
    world.reconciler.saw("ADDED", world.api.sent[0])
    monkeypatch.setitem(world.reconciler.scheduler._due, UID, asyncio.get_running_loop().time() - 600)
    world.api.unanswered = time.monotonic() - 59
    assert world.reconciler.stuck() is None
    world.api.unanswered = time.monotonic() - 61
    assert "team/run was due" in str(world.reconciler.stuck())


async def test_who_is_held_by_somebody_elses_finalizer_is_not_urgent(world: World) -> None:
    world.api.sent[0]["metadata"] |= {"finalizers": ["example.com/other"], "deletionTimestamp": "2026-11-21T12:00:00Z"}
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    assert not world.reconciler.scheduler.hurries()


async def test_an_openai_that_is_away_does_not_fail_the_probe(world: World) -> None:
    world.wire.fail = [Failure(reason=Reason.UNREACHABLE, message="away", retry_after=600)] * 3
    world.reconciler.saw("ADDED", world.api.sent[0])
    pause = await world.work()
    assert pause is not None
    assert pause >= 599
    assert world.reconciler.stuck() is None


async def test_a_claim_whose_write_is_under_way_at_the_stop_is_let_go_once_it_is_there(world: World) -> None:
    landed = asyncio.Event()
    hold = world.api.hold

    async def slow(run: Run, record: str) -> Body:
        there = await hold(run, record)
        await landed.wait()
        return there

    world.api.hold = slow  # type: ignore[method-assign]
    world.reconciler.saw("ADDED", world.api.sent[0])
    working = asyncio.create_task(world.work())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    working.cancel()  # as the stop does
    await asyncio.gather(working, return_exceptions=True)
    asyncio.get_running_loop().call_soon(landed.set)
    await world.reconciler.drain(5)
    assert world.api.body
    assert '"released"' in world.api.body["metadata"]["annotations"][RECORD_ANNOTATION]
    assert world.wire.created == []


async def test_without_the_right_to_act_nothing_is_done_until_it_is_there(world: World) -> None:
    allowed = False
    world.reconciler._may_act = lambda: allowed
    world.reconciler.saw("ADDED", world.api.sent[0])
    assert await world.work() == 1.0
    assert (world.api.writes, world.wire.created) == ([], [])
    allowed = True
    await world.work()
    assert len(world.wire.created) == 1


async def test_the_right_to_act_lost_between_claim_and_create_sends_nothing(world: World) -> None:
    allowed = True
    world.reconciler._actor.sender._may_act = lambda: allowed
    world.reconciler._may_act = lambda: allowed
    write_status = world.api.write_status

    async def lose(run: Run, difference: Body) -> Body:
        nonlocal allowed
        allowed = False
        return await write_status(run, difference)

    world.api.write_status = lose  # type: ignore[method-assign]
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    assert world.api.writes == ["hold", "status"]
    assert world.wire.created == []


@pytest.mark.parametrize("status", [403, 422, 500])
async def test_a_status_that_cannot_be_written_stops_no_look_and_no_cancel(world: World, status: int) -> None:
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()

    async def refused(run: Run, difference: Body) -> Body:
        raise (RefusedError if status == 422 else ClusterError)("write the status", status, "no")

    world.api.write_status = refused  # type: ignore[method-assign]
    for seconds in (10, 20, 30):
        world.now = world.now.replace(second=seconds)
        with pytest.raises(TryAgainError, match="cannot write the status"):
            await world.work()
    assert len(world.wire.observed) >= 2
    for minute in (30, 31, 32):
        world.now = world.now.replace(minute=minute)
        with pytest.raises(TryAgainError):
            await world.work()
    assert len(world.wire.cancelled) == 1, "the deadline holds"


@pytest.mark.parametrize("end", ["cancelled", "orphaned"])
async def test_a_finalizer_that_cannot_be_removed_yet_is_tried_again_and_its_event_said_once(
    world: World, end: str
) -> None:
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    said = len(world.events)
    world.wire.refuse_cancels = 99 if end == "orphaned" else 0
    world.reconciler.saw("MODIFIED", world.api.change(lambda body: body["metadata"].update(DELETING)))
    if end == "orphaned":
        await world.work()
        world.now = world.now.replace(minute=5)
    for _ in range(3):
        world.api.refuse = [ClusterError("release the finalizer", 403, "forbidden")]
        with pytest.raises(TryAgainError, match="cannot release the finalizer"):
            await world.work()
    await world.work()
    assert world.api.body is None
    assert [event.reason for event in world.events[said:]] == [end.capitalize()]
    assert counted(world, "openairun_orphans_total", api="Responses") == (end == "orphaned")


async def test_deleting_during_a_look_is_one_cancel_once_the_look_is_answered(world: World) -> None:
    world.wire.looking = asyncio.Event()
    async with scheduled(world):
        await until(lambda: world.status.get("runID"))
        world.now = world.now.replace(second=10)
        world.reconciler.scheduler.wake(UID)
        await until(lambda: world.wire.observed)
        world.reconciler.saw("MODIFIED", world.api.change(lambda body: body["metadata"].update(DELETING)))
        await idle()
        assert world.wire.cancelled == [], "one call at a time for one run"
        world.wire.looking.set()
        await until(lambda: world.api.body is None)
    assert len(world.wire.cancelled) == 1


async def test_deleting_twice_is_one_cancel(world: World) -> None:
    world.wire.cancelling = asyncio.Event()
    async with scheduled(world):
        await until(lambda: world.status.get("runID"))
        world.reconciler.saw("MODIFIED", world.api.change(lambda body: body["metadata"].update(DELETING)))
        await until(lambda: world.wire.cancelled)
        again = {"labels": {"deleted": "again"}, "deletionGracePeriodSeconds": 0}
        world.reconciler.saw("MODIFIED", world.api.change(lambda body: body["metadata"].update(again)))
        await idle()
        world.wire.cancelling.set()
        await until(lambda: world.api.body is None)
    assert len(world.wire.cancelled) == 1


async def test_an_error_that_nobody_expected_does_not_let_go_of_a_run_that_goes(world: World) -> None:
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    cancel = world.wire.cancel

    async def broken(ref: RunRef) -> RunObservation:
        world.wire.cancel = cancel  # type: ignore[method-assign]
        raise RuntimeError("unexpected")

    world.wire.cancel = broken  # type: ignore[method-assign]
    world.reconciler.saw("MODIFIED", world.api.change(lambda body: body["metadata"].update(DELETING)))
    with pytest.raises(RuntimeError):  # the scheduler tries again, whatever is raised
        await world.work()
    assert world.api.body is not None
    assert world.api.body["metadata"]["finalizers"] == [FINALIZER]
    await world.work()
    assert (len(world.wire.cancelled), world.api.body) == (1, None)


@pytest.mark.parametrize("type_", [None, "ADDED", "MODIFIED"])
async def test_what_kind_of_event_the_watch_calls_it_makes_no_difference(world: World, type_: str | None) -> None:
    """`kubectl replace` drops the marks, and a new list calls everything new."""
    world.reconciler.saw(type_, world.api.sent[0])
    await world.work()
    for change in ({"input": "x"}, {"input": "another"}):
        replaced = world.api.change(
            lambda body, change=change: body.update(
                spec={"model": "m", **change},
                metadata={k: v for k, v in body["metadata"].items() if k not in ("finalizers", "annotations")},
            )
        )
        world.reconciler.saw(type_, replaced)
        await world.work()
        assert world.api.body is not None
        assert world.api.body["metadata"]["finalizers"] == [FINALIZER]
        assert RECORD_ANNOTATION in world.api.body["metadata"]["annotations"]
        world.now += timedelta(minutes=1)
        await world.work()
    assert [request.spec.input for request in world.wire.created] == ["x", "another"]
    assert [ref.id for ref in world.wire.cancelled] == ["resp_1"]


async def test_what_a_replaced_run_said_does_not_stay_in_status(world: World) -> None:
    world.wire.status = "completed"
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    world.now = world.now.replace(second=30)
    await world.work()
    old = {"output", "usage", "finishedAt", "completedAt"}
    assert old <= world.status.keys()
    world.wire.status = "in_progress"
    world.reconciler.saw("MODIFIED", world.api.change(lambda body: body["spec"].update(input="another")))
    await world.work()
    assert (world.status["runID"], world.status["phase"]) == ("resp_2", "Queued")
    assert not old & world.status.keys()


async def test_the_record_does_not_grow_with_the_definition(world: World) -> None:
    """The API server takes 262144 bytes of annotations; JSON writes a letter that is not ASCII in six."""
    world.api.sent[0]["spec"]["input"] = world.api.body["spec"]["input"] = "ж" * 65_536  # type: ignore[index]
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    assert len(world.wire.created) == 1
    for body in world.api.sent:
        assert len(json.dumps(body["metadata"])) < 10_000


async def test_an_answer_that_is_stored_is_that_of_the_last_response(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Body] = []

    async def write(*args: object, **words: object) -> None:
        asked.append(words)

    monkeypatch.setattr(elsewhere.outputs, "write", write)
    world.wire.status = "completed"
    world.api.change(lambda body: body["spec"].update(outputTo={"configMap": "answer"}))
    world.reconciler.saw("ADDED", world.api.sent[-1])
    await world.work()
    record = world.entry.run.record
    assert record is not None
    later = record.model_copy(update={"current": "resp_9"})

    def change(body: Body) -> None:
        body["metadata"]["annotations"][RECORD_ANNOTATION] = dump_record(later)
        body["status"]["record"] = later.model_dump(mode="json", exclude_none=True)

    world.reconciler.saw("MODIFIED", world.api.change(change))
    world.now = world.now.replace(second=30)
    await world.work()
    assert [(words["run_id"], words["answer_id"]) for words in asked] == [("resp_1", "resp_9")]


async def test_a_changed_spec_cuts_the_pause_before_the_next_try_to_store_short(world: World) -> None:
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    world.entry.known.store_at = world.entry.known.retry_at = world.now.replace(minute=5)

    def rename(body: Body) -> None:
        body["spec"]["outputTo"] = {"configMap": "another"}
        body["metadata"]["generation"] += 1

    world.reconciler.saw("MODIFIED", world.api.change(rename))
    assert (world.entry.known.store_at, world.entry.known.retry_at) == (None, None)
