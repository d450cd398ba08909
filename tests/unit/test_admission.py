"""How many runs go at once, in which order, and how often servers are asked: never more than was allowed."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from providing import BLUE, CONFIG_MAPS, NO_ANSWER, OWN, OWN_KEY, RED, RUNS, Town, slow_down
from providing import town as town

from openairun_operator.api.names import RECORD_ANNOTATION
from openairun_operator.calls import Purpose
from openairun_operator.kube.cluster import ClusterError, RefusedError
from openairun_operator.lifecycle import provider
from openairun_operator.lifecycle.run import Run

NAMES = [f"r{number}" for number in range(6)]


async def queue(town: Town, most: int = 1, names: list[str] = NAMES, **spec: Any) -> None:
    """Runs of one provider that lets `most` of them go."""
    town.provider("team", "red", RED, "red-key", maxConcurrentRuns=most, **spec)
    for name in names:
        town.run("team", name, "red")
    await town.start()
    await town.passes(2)


def end(town: Town, name: str, namespace: str = "team") -> None:
    town.servers.end(town.id(namespace, name))


def shown(town: Town, name: str) -> list[str]:
    """The reasons that its status said, one for each write of conditions."""
    return [d["conditions"][0]["reason"] for who, d in town.api.statuses if who == name and "conditions" in d]


# --- how many go


async def test_no_more_go_than_may_and_they_go_in_the_order_of_their_creation(town: Town) -> None:
    await queue(town, 2, [*reversed(NAMES)])
    order = [*reversed(NAMES)]
    for number in range(2, 7):
        assert town.servers.creates() == order[:number]
        end(town, order[number - 2])
        await town.passes(10)
    assert (town.servers.creates(), town.servers.most) == (order, 2)


async def test_who_waits_says_so_once_and_not_each_time_that_the_queue_moves(town: Town) -> None:
    await queue(town)
    for name in NAMES[:4]:
        assert town.condition("team", "r5")["message"] == (
            "OpenAIProvider red lets 1 runs go at once: waiting for one of them to end (a create without an answer"
            " counts for as long as its run might take)"
        )
        end(town, name)
        await town.passes(90)
    assert shown(town, "r5") == ["ConcurrencyLimit"]
    assert town.condition("team", "r5", "Reconciling")["status"] == "True"
    assert town.reconciler.counts("team", "red") == (1, 1)


async def test_who_is_let_in_at_once_never_says_that_it_waits(town: Town) -> None:
    town.run("team", "free")
    await queue(town, 6)
    assert town.servers.creates() == ["free", *NAMES]
    for name in NAMES:
        assert shown(town, name) == shown(town, "free")
    assert len([1 for _, name in town.api.writes if name == "r0"]) == len(
        [1 for _, name in town.api.writes if name == "free"]
    )


async def test_who_is_no_longer_suspended_never_says_that_it_waits_where_there_is_room(town: Town) -> None:
    town.run("team", "held-back", "red", suspend=True)
    await queue(town, names=[])
    town.edit("team", "held-back", suspend=False)
    await town.passes(2)
    assert town.servers.creates() == ["held-back"]
    assert "ConcurrencyLimit" not in shown(town, "held-back")


async def test_on_the_operators_own_namespaces_take_turns(town: Town) -> None:
    town.operator(max_concurrent_runs=2)
    for number in range(6):
        town.run("greedy", f"g{number}")
    for number in range(2):
        town.run("modest", f"m{number}")
    await town.start()
    await town.passes(2)
    assert sorted(map(str, town.servers.creates())) == ["g0", "m0"]
    end(town, "g0", "greedy")
    end(town, "m0", "modest")
    await town.passes(10)
    assert sorted(map(str, town.servers.creates()[2:])) == ["g1", "m1"]
    assert town.servers.most == 2


async def test_a_run_that_waits_for_tool_results_counts(town: Town) -> None:
    await queue(town)
    id_ = town.id("team", "r0")
    town.servers.runs[id_] = (RED, "red-key", "requires_action")
    await town.passes(120)
    assert town.servers.creates() == ["r0"]


async def test_a_create_without_an_answer_counts_for_as_long_as_its_run_may_take(town: Town) -> None:
    town.servers.faults[RED] = [NO_ANSWER]
    await queue(town, names=["r0", "r1"])
    assert town.reason("team", "r0") == "CreateOutcomeUnknown"
    await town.passes(3500)
    assert len(town.servers.creates()) == 1
    await town.passes(200)
    assert town.servers.creates() == ["r0", "r1"]


async def test_the_room_of_a_create_without_an_answer_is_free_as_soon_as_its_time_is_over(town: Town) -> None:
    town.servers.faults[RED] = [NO_ANSWER]
    await queue(town, names=["r0", "r1"])
    town.edit("team", "r0", timeout="70s")
    await town.passes(66)
    assert town.servers.creates() == ["r0"]
    assert "a create without an answer" in town.condition("team", "r1")["message"]
    await town.passes(4)
    assert town.servers.creates() == ["r0", "r1"]


async def test_a_run_that_was_taken_up_by_its_id_counts_and_waits_for_no_room(town: Town) -> None:
    await queue(town, names=["r0"])
    town.servers.runs["resp_9"] = (RED, "red-key", "in_progress")
    town.run("team", "taken", "red", runID="resp_9")
    await town.passes(5)
    assert town.id("team", "taken") == "resp_9"
    town.run("team", "next", "red")
    end(town, "r0")
    await town.passes(60)
    assert town.servers.creates() == ["r0"]
    town.servers.end("resp_9")
    await town.passes(10)
    assert town.servers.creates() == ["r0", "next"]


@pytest.mark.parametrize(
    "spec",
    [
        {"suspend": True},
        {"cancel": True},
        {"inputFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}, "input": None},
        {"model": None},
        {"runID": "resp_of_nobody"},
        {"temperature": "hot"},
    ],
    ids=lambda spec: next(iter(spec)),
)
async def test_who_cannot_go_does_not_keep_others_waiting(town: Town, spec: dict[str, Any]) -> None:
    town.provider("team", "red", RED, "red-key", maxConcurrentRuns=1)
    body = town.run("team", "first", "red", **spec)
    clean = {key: value for key, value in body["spec"].items() if value is not None}
    town.api.put(RUNS, "team", "first", {"spec": clean})
    town.run("team", "second", "red")
    await town.start()
    await town.passes(2)
    assert town.servers.creates() == ["second"]


async def test_who_backs_off_lets_others_pass_and_comes_first_when_it_is_back(town: Town) -> None:
    town.servers.faults[RED] = [slow_down(0)]
    await queue(town)
    assert town.servers.creates() == ["r0", "r1"]
    await town.passes(10)
    end(town, "r1")
    await town.passes(10)
    assert town.servers.creates() == ["r0", "r1", "r0"]


async def test_another_limit_holds_at_once(town: Town) -> None:
    await queue(town)
    town.provider("team", "red", RED, maxConcurrentRuns=3)
    await town.passes(2)
    assert town.servers.creates() == NAMES[:3]
    town.provider("team", "red", RED, maxConcurrentRuns=2)
    await town.passes(2)
    end(town, "r0")
    await town.passes(30)
    assert town.servers.creates() == NAMES[:3]
    town.provider("team", "red", RED)
    await town.passes(5)
    assert town.servers.creates() == NAMES


@pytest.mark.parametrize("at", [0.0, 0.5, 5.0])
async def test_a_restart_lets_no_more_go_and_keeps_the_order(town: Town, at: float) -> None:
    names = ["z", "y", "c", "b", "a"]  # a list brings them in another order than that of their creation
    town.provider("team", "red", RED, "red-key", maxConcurrentRuns=2)
    for name in names:
        town.run("team", name, "red")
    await town.start()
    await town.passes(at)
    for number in range(5):
        await town.restart()
        await town.passes(8)
        assert sorted(map(str, town.servers.creates())) == sorted(names[: number + 2])
        end(town, names[number])
    assert town.servers.most == 2


async def test_the_order_is_kept_when_the_provider_comes_after_its_runs(town: Town) -> None:
    for name in ["z", "y", "c", "b", "a"]:
        town.run("team", name, "red")
    await town.restart()
    await town.passes(5)
    town.provider("team", "red", RED, "red-key", maxConcurrentRuns=1)
    await town.passes(5)
    assert town.servers.creates() == ["z"]


async def test_turns_are_taken_when_the_operators_own_key_comes_after_its_runs(town: Town) -> None:
    town.operator(max_concurrent_runs=2)
    town.key.current = None
    for number in range(6):
        town.run("greedy", f"g{number}")
    town.run("modest", "m0")
    await town.start()
    await town.passes(5)
    town.key.current = "own-key"
    town.reconciler.provider_changed(None)
    await town.passes(5)
    assert sorted(map(str, town.servers.creates())) == ["g0", "m0"]


async def test_a_run_that_replaces_another_waits_for_its_turn(town: Town) -> None:
    await queue(town, names=["r0", "r1", "r2"])
    end(town, "r0")
    await town.passes(10)
    assert town.servers.creates() == ["r0", "r1"]
    town.edit("team", "r1", input="another")
    await town.passes(30)
    assert town.servers.most == 1
    assert town.servers.creates() == ["r0", "r1", "r1"]  # older than the one that waits


async def test_a_run_that_replaces_one_of_another_provider_waits_for_room(town: Town) -> None:
    await queue(town, names=["r0"])
    town.provider("team", "blue", BLUE, "blue-key")
    town.run("team", "moves", "blue")
    await town.passes(5)
    town.edit("team", "moves", providerRef={"name": "red"}, input="another")
    await town.passes(30)
    assert town.servers.creates() == ["r0", "moves"]
    assert town.condition("team", "moves")["reason"] == "ConcurrencyLimit"
    assert [run[2] for run in town.servers.runs.values()] == ["in_progress", "cancelled"]
    end(town, "r0")
    await town.passes(10)
    assert town.servers.of("create")[-1] == (RED, "red-key")
    assert len(town.servers.creates()) == 3


async def test_a_run_of_unknown_outcome_that_moves_to_another_provider_stands_in_line_there(town: Town) -> None:
    await queue(town, names=["r0"])
    town.provider("team", "blue", BLUE, "blue-key")
    town.servers.faults[BLUE] = [NO_ANSWER]
    town.run("team", "moves", "blue")
    await town.passes(5)
    town.edit("team", "moves", providerRef={"name": "red"}, input="another")
    await town.passes(5)
    assert town.reconciler.counts("team", "red") == (1, 1)
    end(town, "r0")
    await town.passes(10)
    assert town.servers.of("create")[-1] == (RED, "red-key")
    assert town.reconciler.counts("team", "red") == (1, 0)


async def test_a_run_that_replaces_another_gives_its_room_to_one_that_is_older(town: Town) -> None:
    town.run("team", "old", "red", suspend=True)
    await queue(town, names=["new"])
    town.edit("team", "old", suspend=False)
    await town.passes(2)
    town.edit("team", "new", input="another")
    await town.passes(30)
    assert town.servers.creates() == ["new", "old"]
    assert town.servers.most == 1


async def test_a_claim_whose_input_is_read_once_more_keeps_its_room(town: Town) -> None:
    """As it is when its status could not be written for a while."""
    town.api.put(CONFIG_MAPS, "team", "question", {"data": {"text": "x"}})
    town.run("team", "old", "red", suspend=True)
    await queue(town, names=[])
    town.api.down = {"status"}
    source = {"configMapKeyRef": {"name": "question", "key": "text"}}
    town.api.put(RUNS, "team", "new", {"spec": {"model": "m", "inputFrom": source, "providerRef": {"name": "red"}}})
    await town.passes(2)
    town.edit("team", "old", suspend=False)
    await town.passes(60)
    town.api.down = set()
    await town.passes(90)
    assert town.servers.creates() == ["new"]


async def test_a_deleted_run_makes_room(town: Town) -> None:
    await queue(town)
    town.delete("team", "r0")
    await town.passes(5)
    assert town.servers.creates() == ["r0", "r1"]


# --- how often servers are asked


async def test_requests_keep_to_the_rate(town: Town) -> None:
    names = [f"r{number:02}" for number in range(30)]
    await queue(town, 100, names, rateLimit={"requestsPerMinute": 60, "burst": 5})
    await town.passes(298)
    times = [asked.at for asked in town.servers.asked]
    assert len(times) <= 5 + 300
    assert all(later - first >= 8.9 for first, later in zip(times, times[14:], strict=False))
    assert town.servers.creates()[-1] == "r29"
    looks = {asked.run for asked in town.servers.asked[-60:] if asked.doing == "look"}
    assert len(looks) == 30  # all of them, each less often than every 5 s


async def test_the_operators_own_rate_may_be_without_bound(town: Town) -> None:
    town.operator(requests_per_minute=0)
    for number in range(300):
        town.run("team", f"r{number}")
    await town.start()
    await town.passes(0.5)
    assert len(town.servers.creates()) == 300


async def test_the_operators_own_rate_is_one_for_all_namespaces(town: Town) -> None:
    town.operator(requests_per_minute=60, burst=2)
    for number in range(6):
        town.run(f"team-{number}", f"r{number}")
    await town.start()
    await town.passes(0.5)
    assert len(town.servers.creates()) == 2


async def test_no_namespace_slows_another_with_the_same_word_for_a_key_nor_the_operators_own(town: Town) -> None:
    least = {"requestsPerMinute": 1, "burst": 1}
    town.provider("hostile", "red", RED, "none", rateLimit=least)
    town.provider("hostile", "own", OWN, OWN_KEY, rateLimit=least)
    town.provider("team", "red", RED, "none")
    for number in range(5):
        town.run("hostile", f"h{number}", "own" if number % 2 else "red")
        town.run("team", f"r{number}", "red")
        town.run("other", f"o{number}")
    await town.start()
    await town.passes(3)
    assert {f"{whose}{number}" for whose in "ro" for number in range(5)} < set(town.servers.creates())
    assert len(town.servers.creates()) == 12


async def test_patience_that_one_run_is_asked_for_holds_its_namespaces_with_this_address_and_key_and_no_others(
    town: Town,
) -> None:
    for namespace, name, address, key in (
        ("team", "red", RED, "k1"),
        ("team", "same", RED, "k1"),
        ("team", "key", RED, "k2"),
        ("team", "blue", BLUE, "k1"),
        ("other", "theirs", RED, "k1"),
    ):
        town.provider(namespace, name, address, key)
    held, free = ["red", "same"], ["key", "blue", "theirs"]
    for name in held:
        town.run("team", f"of-{name}", name)
    await town.start()
    await town.passes(10)
    town.servers.faults[RED] = [slow_down(60)]
    await town.until(lambda: not town.servers.faults[RED])
    before = len(town.servers.asked)
    for name in free:
        town.run("other" if name == "theirs" else "team", f"of-{name}", name)

    def later() -> set[str]:
        return {str(asked.run).rpartition("_")[2] for asked in town.servers.asked[before:]}

    await town.passes(50)
    assert later() == {f"of-{name}" for name in free}
    await town.passes(30)
    assert later() == {f"of-{name}" for name in free + held}


async def test_patience_is_kept_to_where_the_rate_has_no_bound(town: Town) -> None:
    town.operator(requests_per_minute=0)
    town.provider("team", "red", RED, "k1")
    town.run("team", "first", "red")
    await town.start()
    await town.passes(10)
    town.servers.faults[RED] = [slow_down(60)]
    await town.until(lambda: not town.servers.faults[RED])
    town.run("team", "second", "red")
    await town.passes(50)
    assert town.servers.creates() == ["first"]
    await town.passes(20)
    assert town.servers.creates() == ["first", "second"]


async def test_who_has_room_keeps_it_and_who_waits_says_nothing_new_while_the_server_asks_for_patience(
    town: Town,
) -> None:
    await queue(town, 1)
    town.servers.faults[RED] = [slow_down(40)]
    await town.until(lambda: not town.servers.faults[RED])
    end(town, "r0")
    town.delete("team", "r0")
    await town.passes(30)
    assert town.servers.creates() == ["r0"]
    await town.passes(30)
    assert town.servers.creates()[1:] == ["r1"]
    assert [shown(town, name) for name in NAMES[2:]] == [["ConcurrencyLimit"]] * 4


async def test_who_comes_to_many_that_go_stands_in_no_line_of_theirs(town: Town) -> None:
    await queue(town, 100, [f"r{number}" for number in range(60)], rateLimit={"requestsPerMinute": 60, "burst": 1})
    await town.passes(300)
    town.run("team", "late", "red")
    await town.until(lambda: "late" in town.servers.creates(), 20)


@pytest.mark.parametrize("spec", [{}, {"runID": "resp_9"}], ids=["create", "runID"])
async def test_who_waits_for_the_rate_says_so_once(town: Town, spec: dict[str, Any]) -> None:
    town.servers.runs["resp_9"] = (RED, "red-key", "in_progress")
    await queue(town, 100, ["r0"], rateLimit={"requestsPerMinute": 6, "burst": 1})
    town.run("team", "r1", "red", **spec)
    for _ in range(8):
        await town.passes(1)
        town.reconciler.provider_changed(None)  # whatever wakes it meanwhile
    assert town.condition("team", "r1")["message"] == (
        "OpenAIProvider red takes 6 requests a minute: waiting in line for one of them"
    )
    assert (town.status("team", "r1")["phase"], shown(town, "r1")) == ("Pending", ["RateLimited"])
    assert town.condition("team", "r1", "Reconciling")["status"] == "True"
    assert town.status("team", "r1")["effective"] == {"provider": "red"}
    await town.passes(60)
    assert shown(town, "r1")[0] == "RateLimited"
    assert shown(town, "r1").count("RateLimited") == 1
    assert town.id("team", "r1")


async def test_who_waits_for_a_second_does_not(town: Town) -> None:
    await queue(town, 100, ["r0"], rateLimit={"requestsPerMinute": 40, "burst": 1})
    town.run("team", "r1", "red")
    await town.passes(30)
    assert "RateLimited" not in shown(town, "r1")


async def test_a_cancel_goes_at_once_and_is_counted(town: Town) -> None:
    await queue(town, 100, ["r0", "r1"], rateLimit={"requestsPerMinute": 6, "burst": 1})
    town.delete("team", "r0")
    await town.until(lambda: town.servers.of("cancel"), 1)
    await town.passes(14)
    assert town.servers.creates() == ["r0"], "what would have been next is later now"
    await town.passes(6)
    assert town.servers.creates() == ["r0", "r1"]


async def test_a_cancel_waits_for_patience_and_the_orphan_limit_comes_all_the_same(town: Town) -> None:
    await queue(town, names=["r0", "r1"], most=2)
    town.servers.faults[RED] = [slow_down(1000)]
    await town.until(lambda: not town.servers.faults[RED])
    town.delete("team", "r0")
    await town.passes(100)
    assert town.servers.of("cancel") == []
    assert town.there("team", "r0")
    await town.passes(40)
    assert len(town.servers.of("cancel")) == 1
    assert not town.there("team", "r0")


async def test_a_place_in_line_is_paid_for_once(town: Town) -> None:
    await queue(town, 100, ["r0", "r1"], rateLimit={"requestsPerMinute": 6, "burst": 1})
    for _ in range(50):  # whatever wakes it meanwhile
        town.reconciler.provider_changed(None)
        town.reconciler.scheduler.wake(town.api.objects[RUNS, "team", "r1"]["metadata"]["uid"])
        await town.passes(0.1)
    await town.passes(5)
    assert town.servers.creates() == ["r0", "r1"]


async def test_a_server_that_hangs_keeps_no_more_than_some_workers_and_others_go_on(town: Town) -> None:
    town.servers.hang[RED] = asyncio.Event()
    town.provider("team", "red", RED, "red-key")
    town.provider("team", "rose", RED, "red-key")
    town.provider("other", "blue", BLUE, "blue-key")
    for number in range(200):
        town.run("team", f"r{number}", "red" if number % 2 else "rose")
    await town.start()
    await town.passes(5)
    assert len(town.servers.of("create")) == 16, "for all providers of a namespace together"
    town.run("other", "b", "blue")
    town.run("other", "own")
    await town.passes(3)
    assert {(BLUE, "blue-key"), (OWN, "own-key")} <= set(town.servers.of("create"))
    town.servers.hang.pop(RED).set()
    await town.passes(30)
    assert len(set(town.servers.creates())) == 202


async def test_a_call_that_hangs_is_nothing_stuck(town: Town) -> None:
    """It has a time-out of its own; the probe must not end the operator for a slow server."""
    town.servers.hang[RED] = asyncio.Event()
    town.provider("team", "red", RED, "red-key", requestTimeout="10m")
    town.run("team", "r0", "red")
    await town.start()
    await town.passes(200)
    assert town.reconciler.stuck() is None


async def test_a_server_that_answers_none_of_many_is_nothing_stuck(town: Town) -> None:
    """Else the probe ends the operator again and again, for as long as OpenAI is away."""
    for number in range(600):
        town.run("team", f"r{number}")
    await town.start()
    await town.passes(60)
    town.servers.hang[OWN] = asyncio.Event()

    async def times_out() -> None:
        while True:
            await asyncio.sleep(30)
            town.servers.faults[OWN] = [NO_ANSWER] * 128
            hangs, town.servers.hang[OWN] = town.servers.hang[OWN], asyncio.Event()
            hangs.set()

    town.spawn(times_out())
    for _ in range(43):
        await town.passes(7)
        assert town.reconciler.stuck() is None


async def test_many_deletions_at_a_server_that_hangs_keep_no_others_waiting_and_come_to_an_end(town: Town) -> None:
    town.provider("team", "red", RED, "red-key")
    town.provider("other", "blue", BLUE, "blue-key")
    for number in range(400):
        town.run("team", f"r{number}", "red")
    town.run("other", "b0", "blue")
    await town.start()
    await town.until(lambda: len(town.servers.creates()) == 401)
    town.servers.hang[RED] = asyncio.Event()
    for number in range(400):
        town.delete("team", f"r{number}")
    await town.passes(5)
    assert len(town.servers.of("cancel")) == 32
    town.run("other", "b1", "blue")
    town.delete("other", "b0")
    await town.passes(5)
    assert town.servers.creates()[-1] == "b1"
    assert (BLUE, "blue-key") in town.servers.of("cancel")
    assert not town.there("other", "b0")
    await town.passes(60)
    assert len(town.servers.of("cancel")) <= 3 * 32 + 1
    await town.passes(160)
    assert not any(town.there("team", f"r{number}") for number in range(400))


async def delete_many(town: Town, count: int) -> list[str]:
    """So many at once, all of them cancelled when this returns; the names of those that are still there."""
    names = [f"r{number}" for number in range(count)]
    await queue(town, count, names)
    await town.until(lambda: len(town.servers.creates()) == count)
    for name in names:
        town.delete("team", name)
        await town.passes(0.02)
    assert len(town.servers.of("cancel")) == count
    return left(town, names)


def left(town: Town, names: list[str]) -> list[str]:
    return [name for name in names if town.there("team", name)]


async def test_of_many_deletions_all_are_cancelled_before_any_is_let_go_and_their_room_is_free(town: Town) -> None:
    held = await delete_many(town, 100)
    assert len(held) >= 55
    assert town.reconciler.counts("team", "red") == (0, 0)
    await town.until(lambda: not left(town, held), 4)


async def test_who_is_held_back_when_the_operator_stops_is_let_go_first(town: Town) -> None:
    """Nobody else knows that their runs are over: without the key, the next operator called them orphans."""
    held = await delete_many(town, 100)
    assert len(held) >= 55
    await town.stop()
    await town.reconciler.drain(5)
    assert not left(town, held)


async def test_many_deletions_are_cancelled_one_after_the_other_without_a_pause(town: Town) -> None:
    town.provider("team", "red", RED, "red-key")
    for number in range(100):
        town.run("team", f"r{number}", "red")
    await town.start()
    await town.until(lambda: len(town.servers.creates()) == 100)
    await town.passes(1)
    town.servers.hang[RED] = asyncio.Event()
    for number in range(100):
        town.delete("team", f"r{number}")
    await town.passes(2)
    town.servers.hang.pop(RED).set()
    await town.passes(1)
    assert not any(town.there("team", f"r{number}") for number in range(100))


async def test_a_claim_that_is_refused_keeps_nobody_from_calling(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = town.api.hold

    async def refused(run: Run, record: str) -> Any:
        if run.name.startswith("r"):
            raise RefusedError("claim the run", 422, "denied by a policy")
        return await hold(run, record)

    monkeypatch.setattr(town.api, "hold", refused)
    town.provider("team", "red", RED, "red-key")
    for number in range(40):
        town.run("team", f"r{number}", "red")
    await town.start()
    await town.passes(5)
    town.run("team", "allowed", "red")
    await town.passes(5)
    assert town.servers.creates() == ["allowed"]


async def test_a_claim_that_cannot_be_written_keeps_no_room(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = town.api.hold

    async def refused(run: Run, record: str) -> Any:
        if run.name == "r0":
            raise ClusterError("claim the run", 403, "denied by a webhook")
        return await hold(run, record)

    monkeypatch.setattr(town.api, "hold", refused)
    await queue(town, 1)
    await town.passes(10)
    assert town.servers.creates() == ["r1"]


@pytest.mark.parametrize("state", ["claimed", "created"])
async def test_a_record_that_a_user_wrote_takes_no_room(town: Town, state: str) -> None:
    town.operator(max_concurrent_runs=1, forbid_foreign_ids=True)
    forged = {
        "object": "team/forged", "uid": "forged", "digest": "", "token": "t", "holder": "me", "state": state,
        "api": "Responses", "provider": "operator", "address": OWN, "submittedAt": "9990-01-01T00:00:00Z",
    } | ({"id": "resp_1", "recordedAt": "2026-01-01T00:00:00Z"} if state == "created" else {})  # fmt: skip
    meta = {"namespace": "team", "name": "forged", "annotations": {RECORD_ANNOTATION: json.dumps(forged)}}
    town.api.put(RUNS, "team", "forged", {"metadata": meta, "spec": {"model": "m", "input": "x"}})
    town.run("other", "honest")
    await town.start()
    await town.passes(5)
    assert town.servers.creates() == ["honest"]


async def test_who_waits_for_the_operators_own_server_comes_back_seldom_if_they_are_many(town: Town) -> None:
    """Each is decided upon when it comes back: a thousand a second took all of the processor."""
    await town.start()
    admission = town.reconciler._admission
    for number in range(81):
        admission._calls.begins(f"look {number}", provider.OWN, Purpose.LOOK)
    admission._calls._slow[admission._calls._under_way["look 0"]] = asyncio.get_running_loop().time()
    entry = cast(Any, SimpleNamespace(namespace="team", uid="x", place=None))
    pauses = [admission.in_line(entry, provider.OWN) for _ in range(3000)]
    assert pauses[0] == 1
    assert sum(pause < 10 for pause in pauses) <= 501
    assert max(pauses) == 30
