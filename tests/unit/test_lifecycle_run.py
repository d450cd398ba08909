"""Reading an object: whose run it bears, and what to make of marks that are lost, copied or garbled."""

import json
from datetime import timedelta
from typing import Any

import pytest
from builders import ASSISTANTS, START, UID, World, body, record

from openairun_operator.api.names import RECORD_ANNOTATION
from openairun_operator.api.record import Record
from openairun_operator.api.status import OpenAIRunStatus
from openairun_operator.lifecycle.run import dump_record, parse

FOLLOWED = record()


def mirrored(rec: Record) -> OpenAIRunStatus:
    return OpenAIRunStatus(record=rec, runID=rec.id)


def test_the_record_is_read_from_the_annotation_and_its_mirror() -> None:
    run = parse(body(annotation=FOLLOWED, status=mirrored(FOLLOWED)))
    assert run.record == FOLLOWED
    assert run.record_annotated


def test_the_record_as_it_is_written_is_the_record_as_it_is_read() -> None:
    assert Record.model_validate_json(dump_record(FOLLOWED)) == FOLLOWED


def test_a_copied_objects_record_is_anothers() -> None:
    theirs = record(object="team/original")
    run = parse(body(annotation=theirs))
    assert run.record is None
    assert parse(body(annotation=theirs, status=mirrored(theirs))).record is None
    assert parse(body(annotation=record(object="elsewhere/hello"))).record is None


def test_a_copied_object_gets_a_run_of_its_own_and_leaves_its_siblings_alone() -> None:
    world = World(annotation=record(object="team/original", id="resp_original"))
    world.settle()
    assert world.server.log.count("cancel") == 0
    assert len(world.server.sent) == 1
    assert world.record
    assert (world.record.object, world.record.id) == ("team/hello", "resp_1")


def test_the_same_name_with_another_uid_is_a_restored_object_and_keeps_its_run() -> None:
    run = parse(body(annotation=FOLLOWED, status=mirrored(FOLLOWED), uid="another"))
    assert run.record == record(uid="another")
    assert not run.record_annotated, "the annotation is to be rewritten"


@pytest.mark.parametrize("lost", ["status", "annotation", "uid"])
def test_a_restored_object_goes_on_with_its_run(lost: str) -> None:
    world = World()
    world.until(lambda w: w.status.phase == "InProgress")
    world.restart()
    match lost:
        case "status":
            world.lose_status()
        case "annotation":
            world.annotate(RECORD_ANNOTATION, None)
        case _:
            world.object["metadata"]["uid"] = "another"
            world.object["metadata"]["finalizers"] = []
    world.settle()
    assert world.status.phase == "Completed"
    assert world.status.runID == "resp_1"
    assert len(world.server.sent) == 1
    assert world.run.record_annotated


def test_of_the_annotation_and_the_mirror_the_later_attempt_wins() -> None:
    later = record(token="token-1", submittedAt=START + timedelta(minutes=1), state="claimed", id=None)
    assert parse(body(annotation=later, status=mirrored(FOLLOWED))).record == later
    run = parse(body(annotation=FOLLOWED, status=mirrored(later)))
    assert run.record == later
    assert not run.record_annotated


@pytest.mark.parametrize(
    ("less", "more"),
    [("claimed", "released"), ("claimed", "refused"), ("claimed", "created"), ("refused", "created")],
)
def test_of_one_attempt_the_further_state_wins(less: str, more: str) -> None:
    behind = record(state=less, id=None, recordedAt=None)
    ahead = record(state=more)
    assert parse(body(annotation=ahead, status=mirrored(behind))).record == ahead
    assert parse(body(annotation=behind, status=mirrored(ahead))).record == ahead


def test_an_id_that_was_changed_by_hand_is_put_back() -> None:
    world = World()
    world.until(lambda w: w.status.phase == "InProgress")
    assert world.record
    world.annotate(RECORD_ANNOTATION, dump_record(world.record.model_copy(update={"id": "resp_another"})))
    world.settle()
    assert (world.status.phase, world.status.runID) == ("Completed", "resp_1")
    assert world.run.record_annotated
    assert world.status.history is None


@pytest.mark.parametrize("change", [{"digest": "another"}, {"createAgain": "1"}, {"adopted": True}], ids=str)
def test_what_else_the_annotation_says_of_the_same_run_is_newer_than_the_mirror(change: dict[str, Any]) -> None:
    newer = record(**change)
    assert parse(body(annotation=newer, status=mirrored(FOLLOWED))).record == newer


@pytest.mark.parametrize(
    "edit",
    [
        {"current": "resp_of_another"},
        {"thread": "thread_of_another"},
        {"recordedAt": "2020-01-01T00:00:00Z"},
        {"api": "Assistants"},
    ],
    ids=lambda edit: next(iter(edit)),
)
def test_what_is_settled_does_not_change_by_an_edited_annotation(edit: dict[str, Any]) -> None:
    run = parse(body(annotation=record(**edit), status=mirrored(FOLLOWED)))
    assert run.record == FOLLOWED
    assert not run.record_annotated


def garbled(**fields: Any) -> str:
    data = FOLLOWED.model_dump(mode="json", exclude_none=True) | fields
    return json.dumps({k: v for k, v in data.items() if v is not None})


GARBAGE = {
    "no JSON": "resp_0",
    "no object": "[]",
    "a text": '"resp_0"',
    "null": "null",
    "an empty object": "{}",
    "cut off": dump_record(FOLLOWED)[:100],
    "a state of the future": garbled(state="archived", version=2),
    "an API of the future": garbled(api="Agents", version=2),
    "created without an id": garbled(id=None),
    "created with an empty id": garbled(id=""),
    "no token": garbled(token=None),
    "a time without a zone": garbled(submittedAt="2026-11-02T08:00:00"),
    "a time of record without a zone": garbled(recordedAt="2026-11-02T08:00:00"),
    "a timeout that is none": garbled(timeout="soon"),
    "a timeout beyond all time": garbled(timeout="99999999999h"),
    "an interval that is none": garbled(pollingInterval="often"),
}


@pytest.mark.parametrize("text", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_in_the_annotation_yields_to_the_mirror(text: str) -> None:
    run = parse(body(annotation=text, status=mirrored(FOLLOWED)))
    assert run.record == FOLLOWED
    assert not run.record_annotated


@pytest.mark.parametrize("text", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_alone_may_speak_of_a_run_so_nothing_is_created(text: str) -> None:
    world = World(annotation=text)
    world.settle()
    assert world.server.log == []
    assert world.reason() == "CreateOutcomeUnknown"
    stalled = world.status.condition("Stalled")
    assert stalled
    assert RECORD_ANNOTATION in stalled.message
    world.annotate(RECORD_ANNOTATION, None)
    world.settle()
    assert world.status.phase == "Completed"


def test_an_object_with_garbage_can_be_deleted_and_what_may_be_left_is_said() -> None:
    world = World(annotation="resp_0", finalizers=["openairun.dev/cancel-run"])
    world.delete()
    world.settle()
    assert world.body is None
    assert world.orphan
    assert RECORD_ANNOTATION in world.orphan


def test_a_missing_digest_beside_a_run_id_makes_no_new_run() -> None:
    world = World()
    world.until(lambda w: w.status.phase == "InProgress")
    world.restart()
    world.lose_status()
    assert world.record
    world.annotate(RECORD_ANNOTATION, dump_record(world.record).replace('"digest"', '"was-digest"'))
    world.settle()
    assert len(world.server.sent) == 1
    assert world.status.phase == "Completed"


@pytest.mark.parametrize(
    "status",
    [
        {"conditions": [{"type": "Ready", "status": "Maybe"}]},
        {"usage": "much"},
        {"createdAt": "yesterday"},
        {"api": "Agents"},
    ],
)
def test_a_status_that_cannot_be_read_loses_no_run(status: dict[str, Any]) -> None:
    run = parse(body(status=status | {"record": FOLLOWED.model_dump(mode="json", exclude_none=True)}))
    assert run.status == OpenAIRunStatus()
    assert run.record == FOLLOWED


@pytest.mark.parametrize("spec", [{"input": 1}, {"input": "a", "tools": "all"}, {"timeout": ["1m"]}])
def test_a_spec_that_cannot_be_read_says_which_field(spec: dict[str, Any]) -> None:
    run = parse(body(spec))
    assert run.spec is None
    assert run.spec_error
    assert f"spec.{list(spec)[-1]}" in run.spec_error


@pytest.mark.parametrize(("levels", "read"), [(100, True), (101, False), (5000, False)])
@pytest.mark.parametrize("kind", ["objects", "lists"])
def test_a_spec_that_is_nested_too_deep_is_said_to_be_so(kind: str, levels: int, read: bool) -> None:
    nested: Any = 1
    for _ in range(levels - 1):
        nested = {"in": nested} if kind == "objects" else [nested]
    metadata = {"namespace": "team", "name": "hello", "uid": UID}
    spec = {"input": "a", "tools": [{"type": "file_search", "options": {"first": nested}}]}
    run = parse({"metadata": metadata, "spec": spec})
    assert (run.spec is not None, run.digest != "", run.spec_error is None) == (read, read, read)
    assert read or "spec.tools.0.options: Value error, nested deeper than 100 levels" in str(run.spec_error)


def test_an_unreadable_spec_does_not_keep_a_run_from_being_deleted() -> None:
    world = World()
    world.until(lambda w: w.status.phase == "InProgress")
    world.edit(tools="all")
    world.delete()
    world.settle()
    assert world.body is None
    assert world.server.going() == []


def test_a_bare_object_is_enough() -> None:
    run = parse({"metadata": {"namespace": "team", "name": "hello", "uid": UID}, "spec": None})
    assert (run.key, run.generation, run.record, run.has_finalizer, run.deleted_at) == (
        "team/hello",
        1,
        None,
        False,
        None,
    )


def test_the_api_is_chosen_by_what_the_spec_names() -> None:
    assert parse(body()).api == "Responses"
    assert parse(body(ASSISTANTS)).api == "Assistants"
