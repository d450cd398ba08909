"""What an OpenAIProvider's status says of its key, its address and its runs; and how often that is written."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from providing import BLUE, PROVIDERS, RED, Town
from providing import town as town

from openairun_operator.api.reasons import Reason
from openairun_operator.kube.cluster import ClusterError
from openairun_operator.lifecycle.failure import Failure
from openairun_operator.wires.probe import Probe

BOTH: frozenset[Any] = frozenset({"Responses", "Assistants"})


def said(town: Town, name: str = "red") -> dict[str, tuple[str, str]]:
    conditions = town.status("team", name, PROVIDERS).get("conditions", [])
    return {each["type"]: (each["status"], each["reason"]) for each in conditions}


def written(town: Town, name: str = "red") -> list[dict[str, Any]]:
    return [difference for who, difference in town.api.statuses if who == name]


def failed(reason: Reason) -> Probe:
    return Probe(frozenset(), Failure(reason=reason, message="that is why"))


async def checked(town: Town, probe: Probe | None = None, **spec: Any) -> None:
    if probe:
        town.probes[RED] = probe
    town.provider("team", "red", RED, "red-key", **spec)
    await town.start(checks=True)
    await town.passes(3)


async def test_a_key_that_is_taken_makes_it_ready(town: Town) -> None:
    await checked(town)
    assert {type_: status for type_, (status, _) in said(town).items()} == {
        "Ready": "True",
        "Reconciling": "False",
        "Stalled": "False",
    }
    status = town.status("team", "red", PROVIDERS)
    assert (status["address"], status["apis"]) == (RED, ["Responses", "Assistants"])
    assert (status["runsInFlight"], status["runsWaiting"], status["observedGeneration"]) == (0, 0, 1)


@pytest.mark.parametrize(
    ("probe", "spec", "reason", "stalled"),
    [
        (failed(Reason.INVALID_CREDENTIALS), {}, "InvalidCredentials", True),
        (failed(Reason.UNREACHABLE), {}, "Unreachable", False),
        (failed(Reason.API_NOT_SERVED), {}, "APINotServed", True),
        (Probe(frozenset({"Responses"}), None), {"api": "Assistants"}, "APINotServed", True),
        (Probe(BOTH, None), {"maxConcurrentRuns": "many"}, "InvalidSpec", True),
    ],
)
async def test_what_is_wrong_is_said(
    town: Town, probe: Probe, spec: dict[str, Any], reason: str, stalled: bool
) -> None:
    await checked(town, probe, **spec)
    assert said(town)["Ready"] == ("False", reason)
    assert said(town)["Stalled"][0] == str(stalled)
    assert said(town)["Reconciling"][0] == str(not stalled)


async def test_it_is_written_once_and_a_transition_alone_moves_its_time(town: Town) -> None:
    await checked(town)
    before = town.condition("team", "red", kind=PROVIDERS)["lastTransitionTime"]
    await town.passes(1300)
    assert len(written(town)) == 1
    assert 2 <= len(town.probed) <= 4
    town.secret("team", "red", "another")
    await town.passes(30)
    assert len(written(town)) == 1
    assert town.probed[-1].key == "another"
    town.delete("team", "red", "Secret")
    await town.passes(30)
    assert said(town)["Ready"] == ("False", "NoCredentials")
    assert town.condition("team", "red", kind=PROVIDERS)["lastTransitionTime"] >= before
    assert len(written(town)) == 2


async def test_a_check_that_failed_is_soon_made_again(town: Town) -> None:
    await checked(town, failed(Reason.UNREACHABLE))
    town.probes[RED] = Probe(BOTH, None)
    await town.passes(31)
    assert said(town)["Ready"][0] == "True"


async def test_how_many_runs_go_is_told_at_most_every_ten_seconds(town: Town) -> None:
    await checked(town, maxConcurrentRuns=5)
    for number in range(20):
        town.run("team", f"r{number}", "red")
        await town.passes(2)
    await town.passes(10)
    status = town.status("team", "red", PROVIDERS)
    assert (status["runsInFlight"], status["runsWaiting"]) == (5, 15)
    assert 3 <= len(written(town)) <= 7


async def test_a_deleted_provider_is_forgotten(town: Town) -> None:
    await checked(town)
    town.delete("team", "red", PROVIDERS)
    await town.passes(2)
    probed = len(town.probed)
    await town.passes(1300)
    assert len(town.probed) == probed
    assert town.checker._checks == {}


async def test_a_provider_whose_deletion_the_watch_did_not_bring_is_forgotten_when_it_is_written_to(town: Town) -> None:
    await checked(town)
    with town.unseen(PROVIDERS):
        town.delete("team", "red", PROVIDERS)
    town.probes[RED] = failed(Reason.UNREACHABLE)
    await town.passes(700)
    assert list(town.providers) == []


async def test_a_status_that_is_not_taken_is_tried_again_but_not_all_the_time(town: Town) -> None:
    town.api.down = {"provider_status"}
    await checked(town)
    await town.passes(60)
    assert 4 <= len(written(town)) <= 8
    town.api.down = set()
    await town.passes(11)
    assert said(town)["Ready"][0] == "True"


async def test_a_server_that_hangs_keeps_no_other_provider_waiting(town: Town) -> None:
    town.servers.hang[RED] = asyncio.Event()
    for number in range(5):
        town.provider("team", f"hangs-{number}", RED, "red-key")
    await checked(town)
    town.provider("team", "blue", BLUE, "blue-key")
    await town.passes(3)
    assert said(town, "blue")["Ready"][0] == "True"


async def test_the_hanging_servers_of_a_namespace_keep_no_other_namespace_waiting(town: Town) -> None:
    town.servers.hang[RED] = asyncio.Event()
    for number in range(80):
        town.provider("team", f"hangs-{number}", RED, "red-key")
    town.provider("other", "blue", BLUE, "blue-key")
    await checked(town)
    assert town.condition("other", "blue", kind=PROVIDERS)["status"] == "True"
    assert len([credentials for credentials in town.probed if credentials.base_url == RED]) == 8
    town.servers.hang[RED].set()
    await town.passes(3)
    assert said(town, "hangs-79")["Ready"][0] == "True"


async def test_a_check_that_took_long_counts_from_its_end(town: Town) -> None:
    town.servers.hang[RED] = asyncio.Event()
    for number in range(10):
        town.provider("team", f"hangs-{number}", RED, "red-key")
    await checked(town)
    await town.passes(620)
    town.servers.hang.pop(RED).set()
    await town.passes(500)
    assert len(town.probed) == 11


async def test_a_provider_of_which_there_is_nothing_new_costs_no_task(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    await checked(town)
    looked: list[Any] = []

    async def look(known: Any) -> None:
        looked.append(known)

    monkeypatch.setattr(town.checker, "_check", look)
    await town.passes(60)
    assert looked == []


async def test_what_a_run_finds_wrong_with_a_provider_is_soon_checked(town: Town) -> None:
    """Else it is shown as ready while its key is refused."""
    await checked(town)
    town.run("team", "x", "red")
    await town.passes(40)
    town.servers.wrong_keys.add("red-key")
    town.probes[RED] = failed(Reason.INVALID_CREDENTIALS)
    await town.passes(10)
    assert said(town)["Ready"] == ("False", "InvalidCredentials")


async def test_a_provider_that_runs_find_fault_with_is_not_checked_all_the_time(town: Town) -> None:
    await checked(town)
    for number in range(5):
        town.run("team", f"x{number}", "red")
    town.servers.wrong_keys.add("red-key")
    before = len(town.probed)
    await town.passes(300)
    assert len(town.probed) - before <= 10


async def test_no_check_is_made_while_the_server_asks_for_patience(town: Town) -> None:
    await checked(town)
    town.run("team", "x", "red")
    await town.passes(5)
    town.servers.faults[RED] = [Failure(reason=Reason.RATE_LIMITED, message="slow down", retry_after=120)]
    await town.until(lambda: not town.servers.faults[RED])
    before = len(town.probed)
    town.provider("team", "red", RED, "red-key", maxConcurrentRuns=7)
    await town.passes(110)
    assert len(town.probed) == before
    await town.passes(20)
    assert len(town.probed) > before


async def test_a_secret_that_the_operator_may_not_read_is_named_as_such(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: Any) -> None:
        raise ClusterError("read Secret", 403, "forbidden")

    monkeypatch.setattr(town.api, "read", refused)
    await checked(town)
    assert said(town)["Ready"] == ("False", "ReferenceForbidden")
