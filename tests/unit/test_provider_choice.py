"""Whose key and address a run gets, and keeps: what no change of providers, and no lag of the watch, may break."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest
import tls
from providing import BLUE, CONFIG_MAPS, NO_ANSWER, OWN, OWN_KEY, PROVIDERS, RED, RUNS, SECRETS, Town, slow_down
from providing import town as town

from openairun_operator.api.names import RECORD_ANNOTATION
from openairun_operator.api.reasons import Reason
from openairun_operator.kube.credentials import OperatorKey
from openairun_operator.lifecycle.failure import CallFailedError
from openairun_operator.lifecycle.run import parse

OURS = (OWN, OWN_KEY)
SELECTED = {"own_provider_selector": (("team", "research"),)}


def asked(town: Town) -> set[tuple[str, str]]:
    """The addresses that were asked at all, each with the keys that it got."""
    return {(each.address, each.key) for each in town.servers.asked}


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


# --- which provider a run uses


async def test_a_run_goes_to_the_provider_that_it_names(town: Town) -> None:
    town.provider("team", "red", RED, "red-key")
    town.provider("team", "default", BLUE, "blue-key")
    town.run("team", "a", "red")
    await town.start()
    await town.passes(3)
    assert asked(town) == {(RED, "red-key")}
    assert town.status("team", "a")["effective"]["provider"] == "red"


async def test_a_run_that_names_none_goes_to_its_namespaces_default_and_else_to_the_operators_own(town: Town) -> None:
    town.provider("team", "default", BLUE, "blue-key")
    town.run("team", "a")
    town.run("other", "b")
    await town.start()
    await town.passes(1)
    assert dict(zip(town.servers.creates(), town.servers.of("create"), strict=True)) == {
        "a": (BLUE, "blue-key"),
        "b": OURS,
    }
    assert town.status("other", "b")["effective"]["provider"] == "operator"


async def test_a_provider_that_is_not_there_is_waited_for(town: Town) -> None:
    town.run("team", "a", "red")
    await town.start()
    await town.passes(60)
    assert (town.reason("team", "a"), town.servers.asked) == ("ProviderNotFound", [])
    town.provider("team", "red", RED, "red-key")
    await town.passes(1)
    assert town.servers.of("create") == [(RED, "red-key")]


async def test_a_provider_of_another_namespace_is_never_used(town: Town) -> None:
    for name in ("red", "default"):
        town.provider("other", name, RED, "red-key")
    town.run("team", "a", "red")
    town.run("team", "b")
    await town.start()
    await town.passes(600)
    assert town.reason("team", "a") == "ProviderNotFound"
    assert asked(town) == {OURS}


async def test_the_operators_own_is_used_only_if_that_is_allowed(town: Town) -> None:
    town.operator(own_provider=False)
    town.run("team", "a")
    await town.start()
    await town.passes(60)
    assert (town.reason("team", "a"), town.servers.asked) == ("ProviderNotFound", [])
    assert "called default" in town.condition("team", "a")["message"]


async def test_the_operators_own_is_used_in_namespaces_with_the_wanted_labels_alone(town: Town) -> None:
    town.operator(**SELECTED)
    town.run("team", "a")
    town.run("other", "b")
    await town.start()
    await town.passes(5)
    assert (town.reason("team", "a"), town.servers.asked) == ("ProviderNotFound", [])  # nobody knows the labels yet
    town.providers.saw_namespace(None, namespace("team", team="research", more="x"))
    town.providers.saw_namespace(None, namespace("other", team="sales"))
    await town.passes(5)
    assert town.servers.creates() == ["a"]
    town.providers.saw_namespace("MODIFIED", namespace("other", team="research"))
    await town.passes(5)
    assert town.servers.creates() == ["a", "b"]
    town.providers.saw_namespace("DELETED", namespace("other", team="research"))
    town.run("other", "c")
    await town.passes(5)
    assert town.reason("other", "c") == "ProviderNotFound"


async def test_a_run_that_goes_is_followed_to_its_end_when_its_namespace_is_no_longer_allowed(town: Town) -> None:
    town.operator(**SELECTED)
    town.providers.saw_namespace(None, namespace("team", team="research"))
    town.run("team", "a")
    await town.start()
    await town.passes(1)
    town.providers.saw_namespace("MODIFIED", namespace("team"))
    town.servers.end(town.id("team", "a"))
    await town.passes(10)
    assert town.status("team", "a")["phase"] == "Completed"


@pytest.mark.parametrize("spec", [{}, {"runID": "resp_9"}], ids=["create", "runID"])
async def test_a_default_that_the_watch_has_not_brought_yet_is_used_all_the_same(
    town: Town, spec: dict[str, Any]
) -> None:
    await town.start()
    with town.unseen(PROVIDERS):
        town.provider("team", "default", BLUE, "blue-key")
        town.run("team", "a", **spec)
        await town.passes(3)
    assert asked(town) == {(BLUE, "blue-key")}


async def test_the_operators_own_key_is_not_used_while_nobody_can_say_that_there_is_no_default(town: Town) -> None:
    town.run("team", "a")
    await town.start()
    town.api.down = {"read_provider"}
    await town.passes(30)
    assert town.servers.asked == []
    town.api.down = set()
    await town.passes(60)
    assert town.servers.of("create") == [OURS]


@pytest.mark.parametrize("change", ["deleted", "moved"])
async def test_nothing_is_created_with_a_provider_whose_change_the_watch_did_not_bring(town: Town, change: str) -> None:
    """kopf does not tell of what was deleted while the API server was out of reach."""
    town.provider("team", "red", RED, "red-key")
    await town.start()
    with town.unseen(PROVIDERS):
        if change == "deleted":
            town.delete("team", "red", PROVIDERS)
        else:
            town.provider("team", "red", BLUE)
    town.run("team", "a", "red")
    await town.passes(5)
    if change == "deleted":
        assert (town.reason("team", "a"), town.servers.asked) == ("ProviderNotFound", [])
    else:
        assert town.servers.of("create") == [(BLUE, "red-key")]


# --- and waits for


KEEPS = "was deleted: create it again, or name another in spec.providerRef"


async def waits(town: Town, why: str) -> None:
    """A run that names no provider and waits for `default`, for one of the reasons that there are."""
    key = None if why == "NoCredentials" else "blue-key"
    town.provider("team", "default", BLUE, key, maxConcurrentRuns=1, rateLimit={"requestsPerMinute": 600, "burst": 1})
    spec: dict[str, Any] = {}
    match why:
        case "ConcurrencyLimit":
            town.run("team", "first")
        case "RateLimited":
            town.servers.faults[BLUE] = [slow_down(0)] * 9
        case "Suspended":
            spec = {"suspend": True}
        case "ReferenceNotFound":
            spec = {"inputFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}
    body = town.run("team", "a", **spec)
    if "inputFrom" in spec:
        town.api.put(RUNS, "team", "a", {"spec": {k: v for k, v in body["spec"].items() if k != "input"}})
    await town.start()
    await town.passes(2)
    assert town.reason("team", "a") == why


@pytest.mark.parametrize("restart", [False, True], ids=["", "restart"])
@pytest.mark.parametrize("why", ["ConcurrencyLimit", "NoCredentials", "RateLimited", "Suspended", "ReferenceNotFound"])
async def test_a_run_that_was_seen_to_wait_for_default_never_goes_to_the_operators_own(
    town: Town, why: str, restart: bool
) -> None:
    await waits(town, why)
    assert town.status("team", "a")["effective"]["provider"] == "default"
    town.delete("team", "default", PROVIDERS)
    if restart:
        await town.restart()
    if why == "Suspended":
        town.edit("team", "a", suspend=None)
    town.api.put(CONFIG_MAPS, "team", "none", {"data": {"k": "x"}})
    await town.passes(90)
    assert (town.reason("team", "a"), OURS in asked(town)) == ("ProviderNotFound", False)
    assert KEEPS in town.condition("team", "a")["message"]
    town.servers.faults.clear()
    town.provider("team", "default", RED, "red-key", maxConcurrentRuns=2)
    await town.passes(5)
    assert town.servers.of("create")[-1] == (RED, "red-key")
    assert town.reason("team", "a") == "Running"


async def test_another_provider_that_it_names_then_makes_the_run(town: Town) -> None:
    await waits(town, "ConcurrencyLimit")
    town.delete("team", "default", PROVIDERS)
    town.provider("team", "red", RED, "red-key")
    await town.passes(5)
    town.edit("team", "a", providerRef={"name": "red"})
    await town.passes(5)
    assert town.servers.of("create") == [(BLUE, "blue-key"), (RED, "red-key")]
    assert town.status("team", "a")["effective"]["provider"] == "red"


async def test_nor_does_one_that_waited_for_it_without_a_word(town: Town) -> None:
    """It has a second to wait for its place in line: that is not worth a write."""
    town.provider("team", "default", BLUE, "blue-key", rateLimit={"requestsPerMinute": 40, "burst": 1})
    await town.start()
    town.run("team", "first")
    town.run("team", "a")
    await town.passes(0.5)
    assert (town.servers.creates(), town.reason("team", "a")) == (["first"], None)
    town.delete("team", "default", PROVIDERS)
    await town.passes(90)
    assert (town.reason("team", "a"), asked(town)) == ("ProviderNotFound", {(BLUE, "blue-key")})


@pytest.mark.parametrize("verb", ["hold", "write_status"])
async def test_nor_one_whose_claim_was_not_sent(town: Town, verb: str) -> None:
    town.provider("team", "default", BLUE, "blue-key")
    await town.start()
    write = getattr(town.api, verb)

    async def change(*arguments: Any) -> Any:
        answer = await write(*arguments)
        if (PROVIDERS, "team", "default") in town.api.objects:
            town.delete("team", "default", PROVIDERS)
        return answer

    setattr(town.api, verb, change)
    town.run("team", "a")
    await town.passes(5)
    await town.restart()
    await town.passes(90)
    assert (town.reason("team", "a"), town.servers.asked) == ("ProviderNotFound", [])


@pytest.mark.parametrize("restart", [False, True], ids=["", "restart"])
@pytest.mark.parametrize("before", [OWN, BLUE])
async def test_nor_does_the_next_run_of_a_definition_that_changed(town: Town, before: str, restart: bool) -> None:
    if before == BLUE:
        town.provider("team", "default", BLUE, "blue-key", maxConcurrentRuns=1)
    town.run("team", "a")
    await town.start()
    await town.passes(2)
    town.servers.end(town.id("team", "a"))
    await town.passes(10)
    if before == OWN:
        town.provider("team", "default", BLUE, "blue-key", maxConcurrentRuns=1)
    town.run("team", "first")
    await town.passes(2)
    town.edit("team", "a", input="another")
    await town.passes(2)
    assert town.reason("team", "a") == "ConcurrencyLimit"
    town.delete("team", "default", PROVIDERS)
    if restart:
        await town.restart()
    await town.passes(90)
    assert (town.reason("team", "a"), len(town.servers.creates())) == ("ProviderNotFound", 2)
    town.edit("team", "a", input="x")
    await town.passes(5)
    assert town.reason("team", "a") == "Completed"
    assert town.status("team", "a")["effective"]["provider"] == ("operator" if before == OWN else "default")


async def test_nor_is_a_run_taken_up_there(town: Town) -> None:
    town.provider("team", "default", BLUE, "blue-key")
    town.run("team", "a", runID="resp_9")
    await town.start()
    await town.passes(2)
    assert town.reason("team", "a") == "RunNotFound"
    town.delete("team", "default", PROVIDERS)
    await town.restart()
    await town.passes(600)
    assert (town.reason("team", "a"), asked(town)) == ("ProviderNotFound", {(BLUE, "blue-key")})


async def test_while_default_is_replaced_nothing_new_goes_to_the_operators_own(town: Town) -> None:
    """What is deleted and created again, as by `kubectl replace --force`, is gone for a moment."""
    town.provider("team", "default", BLUE, "blue-key")
    await town.start()
    town.delete("team", "default", PROVIDERS)
    town.run("team", "a")
    await town.passes(5)
    assert (town.reason("team", "a"), town.servers.asked) == ("Creating", [])
    assert "deleted just now" in town.condition("team", "a")["message"]
    town.provider("team", "default", BLUE)
    await town.passes(2)
    assert town.servers.of("create") == [(BLUE, "blue-key")]
    town.delete("team", "default", PROVIDERS)
    town.run("team", "b")
    await town.passes(12)
    assert town.servers.of("create")[1:] == [OURS]  # it does not come back


async def test_a_run_that_waits_for_the_operators_own_goes_to_a_default_that_appears(town: Town) -> None:
    town.operator(max_concurrent_runs=1)
    town.run("team", "first")
    town.run("team", "a")
    await town.start()
    await town.passes(2)
    assert town.status("team", "a")["effective"] == {"provider": "operator"}
    town.provider("team", "default", BLUE, "blue-key")
    await town.passes(2)
    assert town.servers.of("create") == [OURS, (BLUE, "blue-key")]


async def test_a_default_that_came_and_went_while_a_run_went_on_the_operators_own_changes_nothing(town: Town) -> None:
    town.run("team", "a")
    await town.start()
    await town.passes(2)
    town.provider("team", "default", BLUE, "blue-key")
    await town.passes(10)
    town.delete("team", "default", PROVIDERS)
    await town.passes(20)
    town.edit("team", "a", input="another")
    await town.passes(10)
    assert town.servers.of("create") == [OURS, OURS]


async def test_a_run_that_waits_without_saying_for_whom_as_in_versions_before_goes_where_it_went(town: Town) -> None:
    await waits(town, "ConcurrencyLimit")
    await town.stop()
    del town.api.objects[RUNS, "team", "a"]["status"]["effective"]
    town.delete("team", "default", PROVIDERS)
    await town.restart()
    await town.passes(5)
    assert town.servers.of("create") == [(BLUE, "blue-key"), OURS]


# --- and keeps


async def goes(town: Town, provider: str = "red") -> str:
    """A run that goes with the provider `red`, and its id."""
    town.provider("team", "red", RED, "red-key")
    town.provider("team", "blue", BLUE, "blue-key")
    town.run("team", "a", provider)
    await town.start()
    await town.passes(3)
    return town.id("team", "a")


async def test_another_provider_ref_and_a_new_default_change_nothing_for_a_run_that_goes(town: Town) -> None:
    id_ = await goes(town)
    town.edit("team", "a", providerRef={"name": "blue"})
    town.provider("team", "default", BLUE, "blue-key")
    await town.passes(30)
    town.edit("team", "a", providerRef=None)
    await town.passes(30)
    assert (town.id("team", "a"), len(town.servers.creates())) == (id_, 1)
    town.delete("team", "a")
    await town.passes(5)
    assert asked(town) == {(RED, "red-key")}
    assert town.servers.runs[id_][2] == "cancelled"
    assert not town.there("team", "a")


async def test_a_run_of_the_operators_own_keeps_it_when_a_default_appears(town: Town) -> None:
    town.run("team", "a")
    await town.start()
    await town.passes(1)
    town.provider("team", "default", BLUE, "blue-key")
    await town.passes(10)
    town.delete("team", "a")
    await town.passes(5)
    assert asked(town) == {OURS}
    assert not town.there("team", "a")


async def test_a_run_that_replaces_another_goes_to_the_provider_that_is_named_now(town: Town) -> None:
    await goes(town)
    town.edit("team", "a", providerRef={"name": "blue"})
    town.edit("team", "a", input="another")
    await town.passes(10)
    assert town.servers.of("create") == [(RED, "red-key"), (BLUE, "blue-key")]
    assert town.servers.of("cancel") == [(RED, "red-key")]
    assert town.status("team", "a")["effective"]["provider"] == "blue"


@pytest.mark.parametrize("what", ["address", "key"])
async def test_a_run_that_is_not_found_since_its_provider_changed_is_not_lost(town: Town, what: str) -> None:
    await goes(town)
    if what == "address":
        town.provider("team", "red", "https://elsewhere/v1")
    else:
        town.secret("team", "red", "key-of-another-account")
    await town.passes(60)
    assert town.reason("team", "a") == "ProviderChanged"
    assert f"is not found since OpenAIProvider red's {what} changed" in town.condition("team", "a")["message"]
    town.provider("team", "red", RED, "red-key")
    await town.passes(60)
    assert town.reason("team", "a") == "Running"
    assert len(town.servers.creates()) == 1


async def test_a_run_that_is_not_found_at_its_own_provider_is_lost(town: Town) -> None:
    id_ = await goes(town)
    del town.servers.runs[id_]
    await town.passes(30)
    assert town.reason("team", "a") == "Lost"


@pytest.mark.parametrize("what", ["address", "key"])
async def test_a_claim_of_a_provider_that_changed_before_it_was_sent_is_made_anew(town: Town, what: str) -> None:
    """Whichever write of the claim the change comes with, nothing is sent to one place with the key of another."""
    town.provider("team", "red", RED, "red-key")
    await town.start()
    for number, verb in enumerate(("hold", "status")):
        done = len(town.servers.asked)
        before = getattr(town.api, verb if verb == "hold" else "write_status")

        async def change(*arguments: Any, write: Any = before, turn: int = number) -> Any:
            answer = await write(*arguments)
            if not town.servers.creates()[turn:]:
                if what == "address":
                    town.provider("team", "red", f"https://red-{turn}/v1")
                else:
                    town.secret("team", "red", f"red-key-{turn}")
                await town.providers.read_due()
                await town.passes(25)
            return answer

        setattr(town.api, verb if verb == "hold" else "write_status", change)
        town.run("team", f"a{number}", "red")
        await town.until(lambda turn=number: len(town.servers.creates()) == turn + 1, 600)
        setattr(town.api, verb if verb == "hold" else "write_status", before)
        now = (f"https://red-{number}/v1", "red-key") if what == "address" else (RED, f"red-key-{number}")
        assert {(each.address, each.key) for each in town.servers.asked[done:] if each.doing == "create"} == {now}
        await town.passes(1)
        record = json.loads(town.api.objects[RUNS, "team", f"a{number}"]["metadata"]["annotations"][RECORD_ANNOTATION])
        assert record["address"] == now[0]


# --- keys come, change and go


async def test_a_new_key_is_in_use_within_half_a_minute_and_the_old_client_is_dropped(town: Town) -> None:
    id_ = await goes(town)
    town.secret("team", "red", "new-key")
    town.servers.accounts["new-key"] = "red-key"
    await town.passes(30)
    assert town.servers.asked[-1].key == "new-key"
    assert [each.key for each in town.clients.forgotten] == ["red-key"]
    town.servers.end(id_)
    await town.passes(10)
    assert town.status("team", "a")["phase"] == "Completed"


async def test_a_key_that_is_refused_is_read_again_at_once(town: Town) -> None:
    await goes(town)
    reads = len(town.api.reads)
    await town.until(lambda: "Secret team/red" in town.api.reads[reads:], 30)
    town.secret("team", "red", "new-key")
    town.servers.accounts["new-key"] = "red-key"
    town.servers.wrong_keys = {"red-key"}
    looks = len(town.servers.asked)
    await town.until(lambda: len(town.servers.asked) > looks, 30)
    before = town.clock.passed
    await town.until(lambda: town.servers.asked[-1].key == "new-key", 10)
    assert town.clock.passed - before < 3


async def test_a_key_that_stays_wrong_is_not_read_more_often_than_every_two_seconds(town: Town) -> None:
    town.servers.wrong_keys = {"red-key"}
    town.provider("team", "red", RED, "red-key")
    for number in range(20):
        town.run("team", f"a{number}", "red")
    await town.start()
    await town.passes(60)
    assert town.reason("team", "a0") == "InvalidCredentials"
    assert len(town.api.reads) <= 30


BROKEN: dict[str, tuple[Reason, str]] = {
    "no secret": (Reason.NO_CREDENTIALS, "There is no Secret red"),
    "no such key in it": (Reason.NO_CREDENTIALS, "has no key api-key"),
    "blank": (Reason.NO_CREDENTIALS, "is blank"),
    "no text": (Reason.NO_CREDENTIALS, "is no text in UTF-8"),
    "not ASCII": (Reason.INVALID_CREDENTIALS, "no HTTP header can carry"),
    "no bundle": (Reason.NO_CREDENTIALS, "There is no ConfigMap ca"),
    "broken bundle": (Reason.INVALID_CREDENTIALS, "the CA bundle cannot be read"),
}
BUNDLE = {"caBundleFrom": {"configMapKeyRef": {"name": "ca", "key": "ca.crt"}}}


def damage(town: Town, what: str) -> None:
    match what:
        case "no secret":
            town.delete("team", "red", SECRETS)
        case "no such key in it":
            town.api.put(SECRETS, "team", "red", {"data": {"another": "eA=="}})
        case "blank":
            town.secret("team", "red", " \n")
        case "no text":
            town.secret("team", "red", b"\xff\xfe")
        case "not ASCII":
            town.secret("team", "red", "schlüssel")
        case "no bundle":
            town.delete("team", "ca", CONFIG_MAPS)
        case "broken bundle":
            town.api.put(CONFIG_MAPS, "team", "ca", {"data": {"ca.crt": "-----BEGIN NONSENSE-----"}})


@pytest.mark.parametrize("what", BROKEN)
async def test_what_is_wrong_with_a_key_is_said_and_fails_nothing(town: Town, what: str) -> None:
    town.api.put(CONFIG_MAPS, "team", "ca", {"data": {"ca.crt": tls.CERTIFICATE}})
    town.provider("team", "red", RED, "red-key", **BUNDLE)
    town.run("team", "goes", "red")
    await town.start()
    await town.passes(3)
    damage(town, what)
    await town.passes(25)
    town.run("team", "new", "red")
    await town.passes(5)
    reason, words = BROKEN[what]
    for name in ("goes", "new"):
        assert town.reason("team", name) == reason
        assert words in town.condition("team", name)["message"]
    assert town.condition("team", "goes", "Finished")["status"] == "False"
    assert town.condition("team", "new", "Stalled")["status"] == "True"
    town.api.put(CONFIG_MAPS, "team", "ca", {"data": {"ca.crt": tls.CERTIFICATE}})
    town.secret("team", "red", "red-key\n")
    await town.passes(25)
    assert [town.reason("team", name) for name in ("goes", "new")] == ["Running", "Running"]
    assert town.servers.creates() == ["goes", "new"]


@pytest.mark.parametrize("gone", ["Secret", "provider", "both", "provider, and another with no Secret"])
async def test_a_run_is_cancelled_with_the_last_key_there_was(town: Town, gone: str) -> None:
    id_ = await goes(town)
    if gone != "provider":
        town.delete("team", "red", SECRETS)
    if gone != "Secret":
        town.delete("team", "red", PROVIDERS)
    if "another" in gone:
        town.provider("team", "red", BLUE)
    await town.passes(30)
    looked = len(town.servers.asked)
    await town.passes(60)
    assert len(town.servers.asked) == looked  # a run that goes on is not looked at with it
    town.delete("team", "a")
    await town.passes(5)
    assert town.servers.of("cancel") == [(RED, "red-key")]
    assert town.servers.runs[id_][2] == "cancelled"
    assert not town.there("team", "a")


async def test_a_deletion_is_not_held_up_by_a_server_that_hangs_longer_than_the_operators_own_requests(
    town: Town,
) -> None:
    """Neither by the look that is under way when it comes, nor by the calls that it makes itself."""
    id_ = await goes(town)
    town.servers.hang[RED] = asyncio.Event()
    looks = len(town.servers.of("look"))
    await town.until(lambda: len(town.servers.of("look")) > looks, 20)
    town.delete("team", "a")
    await town.passes(6)
    assert town.servers.of("cancel") == [(RED, "red-key")]
    await town.passes(113)
    assert town.there("team", "a")
    await town.passes(35)
    assert not town.there("team", "a")
    assert len(town.servers.of("cancel")) >= 3
    assert [id_ in event.message for _, event in town.events if event.reason == "Orphaned"] == [True]


async def test_a_create_that_is_under_way_is_waited_for_since_its_answer_alone_names_the_run(town: Town) -> None:
    town.servers.hang[RED] = asyncio.Event()
    town.provider("team", "red", RED, "red-key", requestTimeout="10m")
    town.run("team", "a", "red")
    await town.start()
    await town.until(town.servers.creates, 5)
    town.delete("team", "a")
    await town.passes(300)
    assert town.there("team", "a")
    town.servers.hang.pop(RED).set()
    await town.passes(5)
    assert not town.there("team", "a")
    assert town.servers.of("cancel") == [(RED, "red-key")]


async def test_a_deletion_without_any_key_ends_after_the_orphan_limit_and_names_the_run(town: Town) -> None:
    id_ = await goes(town)
    town.delete("team", "red", PROVIDERS)
    await town.restart()
    town.delete("team", "a")
    await town.passes(100)
    assert town.there("team", "a")
    await town.passes(40)
    assert not town.there("team", "a")
    assert [id_ in event.message for _, event in town.events if event.reason == "Orphaned"] == [True]


@pytest.mark.parametrize("down", [{"read"}, {"read", "read_provider"}], ids=["Secrets", "all"])
async def test_while_the_api_server_is_away_the_key_that_there_was_is_used(town: Town, down: set[str]) -> None:
    await goes(town)
    town.api.down = down
    before = len(town.servers.asked)
    await town.passes(60)
    assert town.reason("team", "a") == "Running"
    assert len(town.servers.asked) > before + 5
    assert asked(town) == {(RED, "red-key")}


async def test_a_key_that_could_not_be_read_for_the_first_time_is_soon_and_nobody_is_called_to_help(town: Town) -> None:
    town.api.down = {"read"}
    town.provider("team", "red", RED, "red-key")
    town.run("team", "a", "red")
    await town.start()
    await town.passes(1)
    assert "503 away" in town.condition("team", "a")["message"]
    assert town.condition("team", "a", "Stalled")["status"] == "False"
    town.api.down = set()
    await town.passes(3)
    assert town.servers.creates() == ["a"]


async def test_a_spec_that_cannot_be_read_is_said_and_its_runs_can_be_cancelled(town: Town) -> None:
    await goes(town)
    town.provider("team", "red", RED, maxConcurrentRuns="many")
    await town.passes(10)
    assert town.reason("team", "a") == "InvalidSpec"
    assert "spec.maxConcurrentRuns" in town.condition("team", "a")["message"]
    town.delete("team", "a")
    await town.passes(15)
    assert town.servers.of("cancel") == [(RED, "red-key")]


async def test_old_events_of_the_watch_and_a_providers_own_status_change_nothing(town: Town) -> None:
    old = town.provider("team", "red", RED, "red-key")
    new = town.provider("team", "red", BLUE)
    await town.start()
    town.providers.saw("MODIFIED", old)
    town.providers.saw("DELETED", {**old, "metadata": {**old["metadata"], "uid": "another"}})
    reads = len(town.api.reads)
    meta = {**new["metadata"], "resourceVersion": "999"}
    town.providers.saw("MODIFIED", {**new, "metadata": meta, "status": {"runsWaiting": 3}})
    await town.passes(1)
    assert len(town.api.reads) == reads
    town.run("team", "a", "red")
    await town.passes(1)
    assert town.servers.of("create") == [(BLUE, "red-key")]


# --- whose key may go where


async def test_credentials_of_a_namespace_are_always_guarded_and_the_operators_own_never(town: Town) -> None:
    town.api.put(CONFIG_MAPS, "team", "ca", {"data": {"ca.crt": tls.CERTIFICATE}})
    specs: dict[str, dict[str, Any]] = {
        "plain": {},
        "azure": {"azure": {"apiVersion": "v1"}},
        "bundle": BUNDLE,
        "long": {"requestTimeout": "1m"},
    }
    for name, spec in specs.items():
        town.provider("team", name, RED, f"{name}-key", organization="org", project="proj", **spec)
    await town.start()
    made = {known.place[1]: known.credentials for known in town.providers}
    assert all(each is not None and each.guarded for each in made.values())
    azure, bundle, long = made["azure"], made["bundle"], made["long"]
    assert azure is not None
    assert bundle is not None
    assert long is not None
    assert (azure.api_version, azure.key_in_header, azure.organization, azure.project) == ("v1", True, "org", "proj")
    assert (bundle.ca_bundle, long.timeout) == (tls.CERTIFICATE, 60.0)
    assert not town.providers.own.credentials(ending=False).guarded


@pytest.mark.parametrize("ending", [False, True])
@pytest.mark.parametrize("what", ["missing", "no secret", "not read yet", "unreadable spec"])
async def test_a_wire_to_a_namespaces_provider_never_bears_the_operators_own_key(
    town: Town, what: str, ending: bool
) -> None:
    if what != "missing":
        spec = {"maxConcurrentRuns": "many"} if what == "unreadable spec" else {}
        town.provider("team", "red", RED, **spec)
    if what == "no secret":
        await town.start()
    run = parse(town.run("team", "a", "red"))
    with pytest.raises(CallFailedError):
        town.providers.wire(run.namespace, "red", "Responses", ending=ending)


async def test_the_operators_own_key_goes_to_its_own_address_alone(town: Town) -> None:
    for number, spec in enumerate(({}, {"azure": {"apiVersion": "v1"}}, {"organization": "org"})):
        town.provider(f"team-{number}", "default", RED, "red-key", **spec)
        town.run(f"team-{number}", "a")
    town.run("other", "a")
    await town.start()
    await town.passes(60)
    assert {address for address, key in asked(town) if key == OWN_KEY} == {OWN}
    assert {address for address, key in asked(town) if key != OWN_KEY} == {RED}


async def test_without_a_key_of_its_own_the_operator_says_so_and_what_goes_is_ended_with_the_last(
    town: Town, tmp_path: Any
) -> None:
    file = tmp_path / "key"
    file.write_text(OWN_KEY)
    town.key = OperatorKey(file, None)
    town.operator()
    town.run("team", "a")
    await town.start()
    town.spawn(town.key.watch(lambda: town.reconciler.provider_changed(None)))
    await town.passes(5)
    file.unlink()
    await town.passes(20)
    town.run("team", "b")
    await town.passes(1)
    assert [town.reason("team", name) for name in "ab"] == ["NoCredentials", "NoCredentials"]
    town.delete("team", "a")
    await town.passes(5)
    assert town.servers.of("cancel") == [OURS]
    file.write_text("another")
    await town.passes(5)
    assert town.servers.asked[-1].key == "another"


# --- ids of others


FOREIGN = {
    "runID": {"runID": "resp_9"},
    "threadID": {"threadID": "thread_1", "assistantID": "asst_1", "model": None, "input": None},
    "conversationID": {"conversationID": "conv_1"},
    "previousResponseID": {"previousResponseID": "resp_9"},
}


@pytest.mark.parametrize("field", FOREIGN)
async def test_ids_of_what_exists_are_refused_under_the_operators_own_key_alone(town: Town, field: str) -> None:
    town.operator(forbid_foreign_ids=True)
    spec = FOREIGN[field]
    town.provider("team", "red", RED, "red-key")
    town.servers.runs["resp_9"] = (RED, "red-key", "in_progress")
    await town.start()
    for name, provider in (("own", None), ("red", "red")):
        town.run("team", name, provider, **spec)
        if spec.get("model", "") is None:
            town.edit("team", name, model=None, input=None)
    await town.passes(5)
    assert town.reason("team", "own") == "IDNotAllowed"
    assert f"spec.{field}" in town.condition("team", "own")["message"]
    assert town.condition("team", "own", "Stalled")["status"] == "True"
    assert asked(town) == {(RED, "red-key")}
    assert town.reason("team", "red") in ("Running", "Queued")


async def test_ids_of_what_exists_are_allowed_where_nobody_forbids_them(town: Town) -> None:
    town.servers.runs["resp_9"] = (OWN, OWN_KEY, "in_progress")
    town.run("team", "a", runID="resp_9")
    await town.start()
    await town.passes(5)
    assert town.id("team", "a") == "resp_9"


GUARDED: dict[str, dict[str, Any]] = {
    "forbidden": {"forbid_foreign_ids": True},
    "own switched off": {"own_provider": False},
    "another namespace": SELECTED,
}
guarded = pytest.mark.parametrize("settings", GUARDED.values(), ids=GUARDED)


def forge(town: Town, name: str, **fields: Any) -> None:
    """As a user who writes what the operator writes: into the annotation, which is his to edit."""
    body = town.api.objects[RUNS, "team", name]
    annotations = body["metadata"].setdefault("annotations", {})
    before = json.loads(annotations.get(RECORD_ANNOTATION, "{}"))
    run = parse(body)
    made = {
        "object": run.key,
        "uid": run.uid,
        "digest": run.digest,
        "token": "forged",
        "holder": "me",
        "state": "created",
        "api": "Responses",
        "provider": "operator",
        "address": OWN,
        "submittedAt": "2026-11-21T12:00:00Z",
        "recordedAt": "2026-11-21T12:00:00Z",
    }
    annotations[RECORD_ANNOTATION] = json.dumps(made | before | fields)
    body["metadata"]["finalizers"] = ["openairun.dev/cancel-run"]
    town.api.put(RUNS, "team", name, body)


async def assert_left_alone(town: Town, victim: str) -> None:
    """It is neither looked at nor cancelled, and the resource that names it can be deleted."""
    await town.passes(60)
    assert town.reason("team", "a") == "IDNotAllowed"
    town.delete("team", "a")
    await town.passes(130)
    assert not town.there("team", "a")
    assert victim not in [each.run for each in town.servers.asked]
    assert town.servers.runs[victim][2] == "in_progress"


@guarded
async def test_an_annotation_that_status_does_not_confirm_is_not_followed(town: Town, settings: dict[str, Any]) -> None:
    town.operator(**settings)
    town.servers.runs["resp_9"] = (OWN, OWN_KEY, "in_progress")
    town.run("team", "a")
    forge(town, "a", id="resp_9")
    await town.start()
    await assert_left_alone(town, "resp_9")


@pytest.mark.parametrize("forged", [{"current": "resp_9"}, {"id": "resp_9", "token": "new"}], ids=str)
async def test_nor_is_one_that_was_changed_when_status_was_written(town: Town, forged: dict[str, Any]) -> None:
    town.operator(forbid_foreign_ids=True)
    town.servers.runs["resp_9"] = (OWN, OWN_KEY, "in_progress")
    town.run("team", "a")
    await town.start()
    await town.passes(10)
    assert town.reason("team", "a") == "Running"
    forge(town, "a", **forged, submittedAt="2026-11-21T12:30:00Z")
    await assert_left_alone(town, "resp_9")


async def test_nor_one_that_gives_an_id_to_a_create_without_an_answer(town: Town) -> None:
    town.operator(forbid_foreign_ids=True)
    town.servers.runs["resp_9"] = (OWN, OWN_KEY, "in_progress")
    town.servers.faults[OWN] = [NO_ANSWER]
    town.run("team", "a")
    await town.start()
    await town.passes(1)
    assert town.reason("team", "a") == "CreateOutcomeUnknown"
    forge(town, "a", id="resp_9", state="created", recordedAt="2026-11-21T12:00:00Z")
    await assert_left_alone(town, "resp_9")


@guarded
async def test_nor_one_that_passes_off_an_id_of_its_own_server_as_the_operators(
    town: Town, settings: dict[str, Any]
) -> None:
    """The server is the namespace's own too: it can give any id that it likes."""
    town.operator(**settings)
    town.provider("team", "red", RED, "red-key")
    town.run("team", "a", "red")
    await town.start()
    await town.passes(3)
    id_ = town.id("team", "a")
    town.servers.runs[id_] = (OWN, OWN_KEY, "in_progress")
    before = len(town.servers.of("look"))
    forge(town, "a", provider="operator")
    await town.passes(60)
    assert OURS not in town.servers.of("look")[before:]
    town.delete("team", "a")
    await town.passes(130)
    assert not town.there("team", "a")
    assert OURS not in asked(town)


async def test_nor_one_that_has_a_thread_searched(town: Town) -> None:
    town.operator(forbid_foreign_ids=True)
    town.run("team", "a")
    forge(town, "a", state="claimed", api="Assistants", thread="thread_9")
    await town.start()
    await town.passes(60)
    assert town.servers.asked == []
    town.delete("team", "a")
    await town.passes(130)
    assert not town.there("team", "a")
    assert town.servers.asked == []


@guarded
async def test_an_honest_run_is_followed_from_its_first_moment_under_the_same_flags(
    town: Town, settings: dict[str, Any]
) -> None:
    town.operator(**settings)
    town.provider("team", "default", BLUE, "blue-key")
    town.providers.saw_namespace(None, namespace("lab", team="research"))
    honest = ["team", "lab"] if settings == SELECTED else ["team"]
    await town.start()
    for each in honest:
        town.run(each, "a")
    await town.passes(20)
    assert {town.reason(each, "a") for each in honest} == {"Running"}
    assert not [1 for _, difference in town.api.statuses if "IDNotAllowed" in str(difference)]
    await town.restart()
    await town.passes(20)
    assert {town.reason(each, "a") for each in honest} == {"Running"}


async def test_an_honest_run_is_followed_from_its_first_moment_where_ids_are_forbidden(town: Town) -> None:
    town.operator(forbid_foreign_ids=True)
    town.run("team", "a")
    await town.start()
    await town.passes(20)
    assert town.reason("team", "a") == "Running"
    assert not [1 for _, difference in town.api.statuses if "IDNotAllowed" in str(difference)]


@pytest.mark.parametrize("verb", ["write_status", "annotate"])
async def test_a_run_whose_operator_is_killed_at_either_write_of_its_id_is_followed_by_the_next(
    town: Town, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    town.operator(forbid_foreign_ids=True)
    town.run("team", "a")
    await town.start()
    write = getattr(town.api, verb)
    killed = False

    async def written(*arguments: Any) -> Any:
        nonlocal killed
        body = await write(*arguments)
        if town.servers.runs:
            killed = True
            await asyncio.Event().wait()
        return body

    monkeypatch.setattr(town.api, verb, written)
    await town.until(lambda: killed, 10)
    await town.stop()
    monkeypatch.setattr(town.api, verb, write)
    town.operator()
    await town.start()
    await town.passes(20)
    assert town.reason("team", "a") == "Running"
    assert not [1 for _, difference in town.api.statuses if "IDNotAllowed" in str(difference)]


async def test_a_run_whose_create_is_answered_while_the_operator_stops_is_followed_by_the_next(town: Town) -> None:
    town.operator(forbid_foreign_ids=True)
    town.servers.hang[OWN] = asyncio.Event()
    town.run("team", "a")
    await town.start()
    await town.until(town.servers.creates, 10)
    await town.stop()
    town.servers.hang.pop(OWN).set()
    await town.reconciler.drain(5)
    town.operator()
    await town.start()
    await town.passes(20)
    assert town.reason("team", "a") == "Running"


# --- what a provider does not take


@pytest.mark.parametrize(("api", "refused"), [("Responses", "assistant"), ("Assistants", "response"), ("Auto", None)])
async def test_a_run_of_an_api_that_its_provider_is_not_for_is_refused_and_nothing_is_sent(
    town: Town, api: str, refused: str | None
) -> None:
    town.provider("team", "red", RED, "red-key", api=api)
    town.run("team", "response", "red")
    town.run("team", "assistant", "red", threadID="thread_1", assistantID="asst_1")
    await town.start()
    await town.passes(5)
    assert refused not in town.servers.creates()
    assert len(town.servers.creates()) == (1 if refused else 2)
    if refused:
        assert town.reason("team", refused) == "APINotAllowed"
        assert town.condition("team", refused, "Stalled")["status"] == "True"
        town.provider("team", "red", RED)
        body = town.api.objects[PROVIDERS, "team", "red"]
        town.api.put(PROVIDERS, "team", "red", {"spec": {k: v for k, v in body["spec"].items() if k != "api"}})
        await town.passes(5)
        assert refused in town.servers.creates()


async def test_a_default_is_fixed_when_the_run_is_created(town: Town) -> None:
    town.provider("team", "red", RED, "red-key", defaults={"timeout": "40m", "pollingInterval": "9s"})
    body = town.run("team", "a", "red")
    town.api.put(RUNS, "team", "a", {"spec": {k: v for k, v in body["spec"].items() if k != "timeout"}})
    await town.start()
    await town.passes(5)
    town.provider("team", "red", RED, defaults={"timeout": "1m", "pollingInterval": "1s"})
    await town.passes(120)
    assert town.status("team", "a")["effective"] == {"timeout": "40m", "pollingInterval": "9s", "provider": "red"}
    assert town.reason("team", "a") == "Running"


class Slow:
    """The API server takes its time to read Secrets: so many seconds, by the Secret's name up to a dash."""

    def __init__(self, town: Town, **seconds: float) -> None:
        self.town, self.seconds, self.read = town, seconds, town.api.read
        self.reading = self.most = 0
        self.times: list[float] = []
        """When the Secret red was read."""
        town.api.read = self  # type: ignore[method-assign]

    async def __call__(self, kind: str, namespace: str, name: str) -> Any:
        self.reading += 1
        self.most = max(self.most, self.reading)
        if name == "red":
            self.times.append(self.town.clock.passed)
        await asyncio.sleep(self.seconds.get(name.partition("-")[0], 0))
        self.reading -= 1
        return await self.read(kind, namespace, name)

    def longest(self) -> float:
        return max(after - before for before, after in itertools.pairwise(self.times))


async def test_keys_are_read_a_few_at_a_time(town: Town) -> None:
    slow = Slow(town, red=0.1)
    for namespace, number in itertools.product(range(10), range(10)):
        town.provider(f"team-{namespace}", f"red-{number}", RED, "red-key")
    await town.start()
    assert 8 < slow.most <= 32


async def test_a_key_that_takes_long_to_read_holds_up_no_other(town: Town) -> None:
    slow = Slow(town, slow=15)
    for number in range(3):
        town.provider("team", f"slow-{number}", RED, "red-key")
    town.provider("team", "red", RED, "red-key")
    await town.start()
    await town.passes(200)
    assert slow.longest() < 22


async def test_the_many_keys_of_a_namespace_hold_up_no_others(town: Town) -> None:
    slow = Slow(town, many=1)
    for number in range(1000):
        town.provider("many", f"many-{number}", BLUE, "blue-key")
    town.provider("team", "red", RED, "red-key")
    town.run("team", "a", "red")
    await town.start()
    await town.until(town.servers.creates, 5)
    await town.passes(200)
    assert slow.longest() < 22


async def test_a_thousand_keys_are_read_within_half_a_minute(town: Town) -> None:
    slow = Slow(town, red=0.05, many=0.05)
    for number in range(1000):
        town.provider("team", f"many-{number}", BLUE, "blue-key")
    town.provider("team", "red", RED, "red-key")
    await town.start()
    await town.passes(100)
    assert slow.longest() < 29


async def test_the_watch_of_keys_ends_when_it_is_told_to_whatever_comes_at_the_same_moment(town: Town) -> None:
    await town.start()
    await town.passes(1)
    town.provider("team", "red", RED, "red-key")
    async with asyncio.timeout(5):
        await town.stop()
