"""A few of the fault bench's trials; `make faults` does them all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from apiserver import Cluster
from gate import Point, Step
from ground import Ground
from kill_points import Trial, attempt
from outages import CATCHES_UP, api_server_away, openai_away
from scenarios import BOTH, SCENARIOS
from schedules import Schedule

from openairun_devkit.api_proxy import Moment

pytestmark = pytest.mark.cluster

SCENARIO = {scenario.name: scenario for scenario in SCENARIOS}
CREATE = {"Responses": "POST responses", "Assistants": "POST threads/runs"}
SUBMIT = {"Responses": Step("POST responses", 2), "Assistants": Step("POST threads/runs/submit_tool_outputs", 1)}
CANCEL = {"Responses": "POST responses/cancel", "Assistants": "POST threads/runs/cancel"}
CLAIM, SHOW, RECORD = Step("PATCH openairuns", 1), Step("PATCH openairuns/status", 1), Step("PATCH openairuns", 2)


@pytest.fixture(scope="module")
def ground(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground(cluster, tmp_path_factory.mktemp("faults")) as ground:
        yield ground


def killed(ground: Ground, scenario: str, api: str, step: Step, moment: Moment, *, unknown: bool = False) -> None:
    """Kill it there, and see that all comes right; `unknown`: that it says it does not know, and stops."""
    outcome = attempt(ground, Trial(SCENARIO[scenario], api, Point(step, moment), unknown))
    assert outcome.reached
    assert outcome.verdict.problems == []
    assert bool(outcome.verdict.unknown) == unknown


@pytest.mark.parametrize("api", BOTH)
def test_killed_before_the_claim_is_written_it_creates_one_run(api: str, ground: Ground) -> None:
    killed(ground, "create", api, CLAIM, "before")


@pytest.mark.parametrize("api", BOTH)
@pytest.mark.parametrize(("step", "moment"), [(CLAIM, "after"), (SHOW, "answered")], ids=str)
def test_killed_with_a_claim_that_it_has_not_sent_it_never_creates_two(
    api: str, step: Step, moment: Moment, ground: Ground
) -> None:
    killed(ground, "create", api, step, moment, unknown=api == "Responses")


@pytest.mark.parametrize("api", BOTH)
@pytest.mark.parametrize("moment", ["before", "after", "answered"])
def test_killed_around_the_post_it_never_creates_two(api: str, moment: Moment, ground: Ground) -> None:
    killed(ground, "create", api, Step(CREATE[api], 1), moment, unknown=api == "Responses")


@pytest.mark.parametrize("api", BOTH)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_while_the_id_is_recorded_it_never_creates_two(api: str, moment: Moment, ground: Ground) -> None:
    killed(ground, "create", api, RECORD, moment, unknown=(api, moment) == ("Responses", "before"))


@pytest.mark.parametrize("api", BOTH)
def test_killed_around_a_submission_it_never_answers_twice(api: str, ground: Ground) -> None:
    killed(ground, "submit", api, SUBMIT[api], "after", unknown=api == "Responses")


@pytest.mark.parametrize("api", BOTH)
@pytest.mark.parametrize("scenario", ["replace", "cancel", "delete"])
def test_killed_while_a_run_is_cancelled_it_brings_that_to_its_end(scenario: str, api: str, ground: Ground) -> None:
    killed(ground, scenario, api, Step(CANCEL[api], 1), "after")


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_goes_wrong_nothing_runs_twice_and_all_comes_to_rest(seed: int, ground: Ground) -> None:
    schedule = Schedule(ground, seed)
    assert schedule.play().problems == [], "\n".join(schedule.story)


@pytest.mark.parametrize("outage", [api_server_away, openai_away])
def test_after_an_outage_all_is_caught_up_soon(outage: object, ground: Ground) -> None:
    assert callable(outage)
    verdict, took = outage(ground, 20)
    assert verdict.problems == []
    assert took < CATCHES_UP
