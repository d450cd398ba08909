"""`outputTo`: the whole answer is stored before the run is called completed, or as soon as it can be."""

import json
from typing import Any

import pytest
from builders import NO_CREDENTIALS, NOT_FOUND, RESPONSES, World

from openairun_operator.api.reasons import Reason
from openairun_operator.lifecycle.actions import Store
from openairun_operator.lifecycle.failure import Failure

TO: dict[str, Any] = RESPONSES | {"outputTo": {"configMap": "answer"}}
FORBIDDEN = Failure(reason=Reason.OUTPUT_NOT_ALLOWED, message="the operator may not write ConfigMaps")
LONG = "long " * 20_000


def condition(world: World) -> str | None:
    found = world.status.condition("OutputStored")
    return f"{found.status} {found.reason}" if found else None


def test_the_answer_is_stored_before_the_run_is_called_completed() -> None:
    world = World(TO)
    world.until(lambda w: isinstance(w.decide().action, Store))
    assert world.status.phase != "Completed", "who waits for it looks for the answer then"
    world.settle()
    assert world.config_maps == {"answer": ({"output": "hello"}, True)}
    assert (world.status.phase, condition(world)) == ("Completed", "True Stored")
    assert world.status.output
    assert world.status.output.configMap == "answer"
    assert world.status.output.sha256 == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


def test_an_answer_that_is_cut_in_status_is_stored_whole() -> None:
    world = World(TO)
    world.server.answer = LONG
    world.settle()
    assert world.config_maps["answer"][0]["output"] == LONG
    assert world.status.output
    assert (world.status.output.truncated, world.status.output.bytes) == (True, len(LONG))


def test_structured_answers_are_stored_as_json_too_where_they_are_json() -> None:
    world = World(TO | {"responseFormat": {"type": "json_object"}})
    world.server.answer = '{"b": 1, "a": "ü"}'
    world.settle()
    data, _ = world.config_maps["answer"]
    assert data["output"] == world.server.answer
    assert json.loads(data["output.json"]) == {"b": 1, "a": "ü"}
    broken = World(TO | {"responseFormat": {"type": "json_object"}})
    broken.server.answer = '{"cut'
    broken.settle()
    assert broken.config_maps["answer"][0] == {"output": '{"cut'}


def test_json_that_is_nested_too_deep_to_be_indented_is_stored_as_text() -> None:
    for depth, parts in ((100, {"output", "output.json"}), (101, {"output"})):
        world = World(TO | {"responseFormat": {"type": "json_object"}})
        world.server.answer = "[" * depth + "]" * depth
        world.settle()
        assert world.config_maps["answer"][0].keys() == parts


def test_with_a_ttl_the_answer_does_not_go_with_the_resource() -> None:
    world = World(TO | {"ttlAfterFinished": "1h"})
    world.settle()
    assert world.body is None
    assert world.config_maps["answer"][1] is False


def test_a_ttl_that_comes_after_the_answer_was_stored_keeps_the_answer_too() -> None:
    world = World(TO)
    world.settle()
    assert world.config_maps["answer"][1] is True
    world.restart()
    world.edit(ttlAfterFinished="0s")
    world.settle()
    assert world.body is None
    assert world.config_maps["answer"] == ({"output": "hello"}, False)


def test_a_failure_to_store_is_seen_and_tried_again_though_the_run_is_completed() -> None:
    world = World(TO)
    world.store_faults.extend([FORBIDDEN] * 3)
    world.until(lambda w: w.status.finishedAt)
    assert (world.reason(), condition(world)) == ("Completed", "False OutputNotAllowed")
    world.settle()
    assert (world.config_maps["answer"][0], condition(world)) == ({"output": "hello"}, "True Stored")


def test_a_ttl_waits_until_the_answer_is_stored() -> None:
    world = World(TO | {"ttlAfterFinished": "0s"})
    world.store_faults.extend([FORBIDDEN] * 3)
    world.until(lambda w: w.status.finishedAt)
    assert world.body is not None
    world.settle()
    assert world.body is None
    assert world.config_maps["answer"]


def test_after_a_restart_a_long_answer_is_fetched_again_to_be_stored() -> None:
    world = World(TO)
    world.server.answer = LONG
    world.store_faults.append(FORBIDDEN)
    world.until(lambda w: w.status.finishedAt)
    world.restart()
    said = condition(world)
    world.step()
    assert condition(world) == said, "what was said stands until it is known better"
    world.settle()
    assert world.config_maps["answer"][0]["output"] == LONG


def test_an_answer_that_is_no_longer_at_openai_is_said_to_be_lost_and_nothing_more_is_asked() -> None:
    world = World(TO)
    world.server.answer = LONG
    world.store_faults.append(FORBIDDEN)
    world.until(lambda w: w.status.finishedAt)
    world.restart()
    world.server.runs.clear()
    world.settle()
    assert condition(world) == "False OutputLost"
    asked = len(world.server.log)
    world.advance(days=1)
    world.settle()
    assert len(world.server.log) == asked


def test_the_old_answer_stays_until_the_new_run_completes() -> None:
    world = World(TO)
    world.settle()
    world.server.answer = "another"
    world.edit(instructions="Be short")
    world.until(lambda w: w.status.phase == "InProgress")
    assert world.config_maps["answer"][0] == {"output": "hello"}
    world.settle()
    assert world.config_maps["answer"][0] == {"output": "another"}


def test_a_run_that_did_not_complete_stores_nothing() -> None:
    world = World(TO)
    world.server.ends_as = "failed"
    world.settle()
    assert (world.config_maps, condition(world)) == ({}, None)


@pytest.mark.parametrize("late", [False, True])
def test_a_name_that_is_written_or_changed_after_the_end_is_honoured(late: bool) -> None:
    world = World(RESPONSES if late else TO)
    world.settle()
    world.edit(outputTo={"configMap": "elsewhere"})
    world.settle()
    assert world.config_maps["elsewhere"][0] == {"output": "hello"}
    assert world.status.output
    assert world.status.output.configMap == "elsewhere"
    assert len(world.server.sent) == 1


def test_an_openai_that_is_away_does_not_lose_the_answer() -> None:
    world = World(TO)
    world.server.answer = LONG
    world.store_faults.append(FORBIDDEN)
    world.until(lambda w: w.status.finishedAt)
    world.restart()
    world.server.faults.extend([NOT_FOUND])
    world.settle()
    assert world.config_maps["answer"][0]["output"] == LONG


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        pytest.param('{"a": "cut \\ud83d"}', '{\n  "a": "cut "\n}\n', id="half a character"),
        pytest.param('{"a": 1e999}', None, id="no number of JSON"),
        pytest.param("[" * 100_000, None, id="deeper than can be read"),
    ],
)
def test_an_odd_answer_holds_up_nothing(answer: str, written: str | None) -> None:
    world = World(TO | {"responseFormat": {"type": "json_object"}})
    world.server.answer = answer
    world.settle()
    data, _ = world.config_maps["answer"]
    assert data["output"] == answer
    assert data.get("output.json") == written
    for text in data.values():
        text.encode()


def test_a_long_answer_that_is_not_stored_is_not_forgotten_while_there_is_no_key() -> None:
    world = World(TO)
    world.server.answer = LONG
    world.store_faults.append(FORBIDDEN)
    world.until(lambda w: w.status.finishedAt)
    world.restart()
    world.blocked = NO_CREDENTIALS
    for _ in range(3):
        outcome = world.step()
        assert outcome is not False, "it would be at rest"
        if not isinstance(outcome, bool):
            world.now = outcome
    world.blocked = None
    world.settle()
    assert world.config_maps["answer"][0]["output"] == LONG


def test_an_answer_that_is_lost_does_not_hold_up_the_ttl() -> None:
    world = World(TO | {"ttlAfterFinished": "1h"})
    world.server.answer = LONG
    world.store_faults.append(FORBIDDEN)
    world.until(lambda w: w.status.finishedAt)
    world.restart()
    world.server.runs.clear()
    world.until(lambda w: condition(w) == "False OutputLost")
    ended = world.now
    world.settle()
    assert (world.body, world.config_maps) == (None, {})
    assert world.now > ended


def test_of_an_incomplete_run_what_it_wrote_so_far_is_stored() -> None:
    world = World(TO | {"responseFormat": {"type": "json_object"}})
    world.server.ends_as = "incomplete"
    world.server.answer = '{"cut'
    world.until(lambda w: isinstance(w.decide().action, Store))
    assert world.status.phase != "Incomplete", "who waits for it looks for the answer then"
    world.settle()
    assert world.config_maps["answer"][0] == {"output": '{"cut'}
    assert (world.status.phase, condition(world)) == ("Incomplete", "True Stored")


def test_json_for_which_there_is_no_room_beside_the_text_is_left_out_and_that_is_said() -> None:
    world = World(TO | {"responseFormat": {"type": "json_object"}})
    world.server.answer = json.dumps(["x" * 600_000])
    world.settle()
    assert world.config_maps["answer"][0] == {"output": world.server.answer}
    found = world.status.condition("OutputStored")
    assert found
    assert found.message.endswith("bytes; output.json is left out, since there is no room for both")
    world.restart()
    world.edit(timeout="1h")
    world.settle()
    assert world.status.condition("OutputStored") == found.model_copy(update={"observedGeneration": 2})
