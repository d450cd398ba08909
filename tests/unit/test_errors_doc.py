"""docs/errors.md: one taxonomy of all that can go wrong, and all of it is what the code does."""

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from answers import answered, raised, said
from reconciling import World

from openairun_operator import providers, reconciler, scheduler
from openairun_operator.api.reasons import Reason
from openairun_operator.kube import cluster, credentials, kopf_settings, outputs
from openairun_operator.lifecycle import ending
from openairun_operator.lifecycle.failure import NEEDS_PERSON, Failure, retry_delay
from openairun_operator.lifecycle.provider import POLLING_INTERVAL, Provider
from openairun_operator.wires import clients, errors
from openairun_operator.wires.errors import Doing

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/errors.md").read_text()
Row = dict[str, str]

# A person must act on these too, though the operator does not wait for one as it does for NEEDS_PERSON.
ENDED = {Reason.FAILED, Reason.INCOMPLETE, Reason.EXPIRED, Reason.DEADLINE_EXCEEDED, Reason.LOST, Reason.ORPHANED}
STOPPED = {Reason.INVALID_REQUEST, Reason.INVALID_SPEC, Reason.TOOL_OUTPUTS_REFUSED, Reason.CREATE_OUTCOME_UNKNOWN}
ASKED_SOON = {Reason.REFERENCE_NOT_FOUND, Reason.PROVIDER_CHANGED}  # may pass by itself, and mostly does not
OUTPUT = {Reason.OUTPUT_NOT_ALLOWED, Reason.OUTPUT_TOO_BIG, Reason.OUTPUT_NOT_OURS, Reason.OUTPUT_LOST}
MENDED_BY_A_PERSON = ENDED | STOPPED | ASKED_SOON | OUTPUT | {Reason.TTL_UNDER_GITOPS}

NEVER_AGAIN = ENDED | STOPPED | {Reason.COMPLETED, Reason.CANCELLED, Reason.OUTPUT_LOST}
NEVER_AGAIN |= {Reason.NO_EFFECT, Reason.TTL_UNDER_GITOPS}
IN_ITS_OWN_WAY = {Reason.NO_CREDENTIALS, Reason.MODEL_NOT_SET, Reason.PROVIDER_CHANGED, Reason.FINDING}
IN_ITS_OWN_WAY |= {Reason.PROVIDER_NOT_FOUND, Reason.API_NOT_ALLOWED, Reason.ID_NOT_ALLOWED}


def tables(heading: str | None = None) -> Iterator[Row]:
    """The rows of the tables under a heading, or of all of them, by the names of their columns."""
    text = PAGE if heading is None else PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        names, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
        yield from (dict(zip(names, row, strict=True)) for row in rows)


def reasons(cell: str) -> list[str]:
    """The reasons that a cell links to their headings."""
    links = re.findall(r"\[(\w+)\]\(troubleshooting\.md#(\w+)\)", cell)
    assert all(name.lower() == anchor for name, anchor in links)
    return [name for name, _ in links]


ROWS: dict[Reason, Row] = {Reason(name): row for row in tables() for name in reasons(row.get("Reason", ""))}
TROUBLES = {reason: row for reason, row in ROWS.items() if "Tried again" in row}
ANSWERS = list(tables("What an answer of OpenAI means"))


def test_every_reason_is_in_exactly_one_row() -> None:
    found = [name for row in tables() for name in reasons(row.get("Reason", ""))]
    assert sorted(found) == sorted(reason.value for reason in Reason)


def test_a_person_must_act_where_the_operator_waits_for_one_and_where_it_stopped() -> None:
    said_yes = {reason for reason, row in TROUBLES.items() if row["A person must act"] == "yes"}
    assert said_yes == NEEDS_PERSON | MENDED_BY_A_PERSON
    assert {row["A person must act"] for row in TROUBLES.values()} == {"yes", "no"}
    assert not NEEDS_PERSON & MENDED_BY_A_PERSON


def again(reason: Reason) -> str:
    """How soon a call that failed so is tried again, as the page says it."""
    failure = Failure(reason=reason, message="")
    interval = POLLING_INTERVAL.total_seconds()
    first, last = (retry_delay(failure, failures, 0.5, interval) for failures in (1, 1000))
    return f"every {first / 60:g} min" if first == last else f"{first:g} s to {last:g} s"


@pytest.mark.parametrize("reason", sorted(TROUBLES.keys() - IN_ITS_OWN_WAY))
def test_it_is_tried_again_as_soon_as_the_page_says(reason: Reason) -> None:
    soon = TROUBLES[reason]["Tried again"].split(";")[0]
    assert soon == ("never" if reason in NEVER_AGAIN else again(reason))


async def test_what_is_tried_again_in_its_own_way_is_so_too() -> None:
    cells = {reason: TROUBLES[reason]["Tried again"] for reason in IN_ITS_OWN_WAY}
    assert cells[Reason.NO_CREDENTIALS].startswith(
        f"when there is a key; its file is read every {credentials._LOOK:g} s"
    )
    assert f"of an OpenAIProvider every {providers._READ:g} s" in cells[Reason.NO_CREDENTIALS]
    assert cells[Reason.MODEL_NOT_SET].startswith("when it is set")
    assert cells[Reason.PROVIDER_NOT_FOUND].startswith("when it is there")
    for reason in (Reason.API_NOT_ALLOWED, Reason.ID_NOT_ALLOWED):
        assert cells[reason].startswith("when the definition")
    settles = Provider(name="", address="").create_settles.total_seconds()
    assert cells[Reason.FINDING].startswith(f"{settles:g} s after a search that found nothing")

    world, pauses = World(), []
    world.reconciler.saw("ADDED", world.api.sent[0])
    await world.work()
    world.provider = dataclasses.replace(world.provider, address="http://elsewhere/v1")
    for _ in range(20):
        world.wire.fail = [Failure(reason=Reason.NOT_FOUND, message="no such run")]
        world.now = world.entry.known.look_at
        await world.work()
        if world.status["conditions"][0]["reason"] == Reason.PROVIDER_CHANGED:
            pauses.append((world.entry.known.look_at - world.now).total_seconds())
    assert cells[Reason.PROVIDER_CHANGED].split(";")[0] == f"{pauses[0]:g} s to {max(pauses):g} s"


def test_the_bounds_of_all_retries_are_in_the_text() -> None:
    text = " ".join(PAGE.split())
    assert again(Reason.RATE_LIMITED) == "2 s to 60 s"
    assert again(Reason.UNREACHABLE) == "2 s to 12 s"
    assert "within the run's polling interval and 10 s (2 s to 12 s where that is 5 s)" in text
    assert f"up to {errors._MAX_RETRY_AFTER / 60:g} minutes" in text
    assert f"after at most {ending._RETRY.total_seconds():g} s, or when the server asks for it" in text
    away = Failure(reason=Reason.RATE_LIMITED, message="")
    spread = [retry_delay(away, 100, jitter) / 60 for jitter in (0, 1)]
    assert spread == pytest.approx([0.8, 1.2])
    assert "spread by ±20 %" in text
    asked = Failure(reason=Reason.RATE_LIMITED, message="", retry_after=100)
    assert [retry_delay(asked, 1, jitter) for jitter in (0, 1)] == pytest.approx([100, 120])
    assert "at that time or up to 20 % later" in text


# What an answer of OpenAI means

WITHOUT_STATUS: dict[str, Exception] = {
    "no connection": aiohttp.ConnectionTimeoutError(),
    "a connection that broke before the answer was whole": aiohttp.ServerDisconnectedError(),
    "no answer in 30 s (`--request-timeout`)": TimeoutError(),
    "a success with anything but a run": ValueError("no JSON"),
}
OTHERS = {"3xx": [301, 302, 307, 308], "4xx": [406, 418, 421, 425], "5xx": [501, 505, 520, 524, 529]}
COLUMNS: dict[str, Doing] = {"Create": "create", "Tool outputs": "submit", "Look, cancel": "look"}


def statuses(cell: str) -> list[str]:
    return re.findall(r"\b\d(?:\d\d|xx)\b", re.sub(r"`.*?`", "", cell))


def bodies(cell: str) -> list[Any]:
    """The answers that a row speaks of."""
    codes = re.findall(r"`(\w+)`", cell)
    if codes:
        known = [said("No.", code) for code in codes]
        return [*known, said("Thread t already has an active run r.")] if "already has" in cell else known
    if "names nothing" in cell:
        forms = [said("Not Found"), said(""), {"detail": "No such response."}]
        return [said("Invalid URL (POST /v1/responses)"), *forms, "", "null", "<html>upstream</html>"]
    if "another form" in cell:
        return ["<html>upstream</html>"]
    return [said("These are OpenAI's own words.")]


def failures(cell: str, doing: Doing) -> Iterator[Failure]:
    if not statuses(cell):
        yield raised(WITHOUT_STATUS[cell], doing=doing)
    for token in statuses(cell):
        for status in OTHERS.get(token) or [int(token)]:
            for body in bodies(cell):
                yield answered(status, body, doing=doing)


def told(failure: Failure, doing: Doing) -> str:
    """What the page says of a failure."""
    reason = failure.reason
    if doing == "submit" and reason is Reason.INVALID_REQUEST:
        reason = Reason.TOOL_OUTPUTS_REFUSED
    return reason if doing == "look" else f"{reason}, {failure.outcome.value}"


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", ANSWERS, ids=lambda row: row["Answer"])
def test_an_answer_means_what_the_page_says(row: Row, column: str) -> None:
    doing = COLUMNS[column]
    assert {told(failure, doing) for failure in failures(row["Answer"], doing)} == {row[column]}


def test_all_answers_that_people_ask_about_are_there() -> None:
    found = {status for row in ANSWERS for status in statuses(row["Answer"])}
    asked = {"400", "401", "402", "403", "404", "408", "409", "413", "422", "429", "500", "502", "503", "504"}
    assert asked | set(OTHERS) <= found
    (no_quota,) = [row for row in ANSWERS if "`insufficient_quota`" in row["Answer"]]
    (limited,) = [row for row in ANSWERS if row["Answer"] == "429"]
    assert (no_quota["Create"], limited["Create"]) == ("QuotaExceeded, not created", "RateLimited, not created")
    listed = re.findall(r"`(\w+)`", no_quota["Answer"])
    assert set(listed) == errors._QUOTA
    (no_model,) = [row for row in ANSWERS if "`model_not_found`" in row["Answer"]]
    assert set(re.findall(r"`(\w+)`", no_model["Answer"])) == errors._MODEL


def test_over_the_assistants_api_every_404_to_a_create_is_an_api_not_served() -> None:
    for body in (said("No thread found with id 'thread_1'."), said("Invalid URL"), "", "<html>"):
        assert answered(404, body, api="Assistants").reason is Reason.API_NOT_SERVED


def test_a_404_to_a_cancel_that_names_nothing_may_come_of_a_server_without_one() -> None:
    assert "a 404 to it that names nothing, and is no page, is Refused" in " ".join(PAGE.split())
    for body in (said("Invalid URL"), said("Not Found"), {"detail": "Not Found"}, ""):
        assert answered(404, body, doing="optional").reason is Reason.REFUSED
    assert answered(404, "<html>", doing="optional").reason is Reason.SERVER_ERROR
    assert answered(404, said("No run found with id 'r'."), doing="optional").reason is Reason.NOT_FOUND


def by_reason(column: str) -> dict[str, list[tuple[str, str]]]:
    """For each reason in a column its answers, and what came of them."""
    out: dict[str, list[tuple[str, str]]] = {}
    for row in ANSWERS:
        reason, _, outcome = row[column].partition(", ")
        out.setdefault(reason, []).append((row["Answer"], outcome))
    return out


@pytest.mark.parametrize("reason", [reason for reason, row in ROWS.items() if "From" in row])
def test_a_reason_comes_from_the_answers_that_mean_it(reason: Reason) -> None:
    meant = {
        status for column in COLUMNS for answer, _ in by_reason(column).get(reason, ()) for status in statuses(answer)
    }
    assert set(statuses(ROWS[reason]["From"])) == meant


@pytest.mark.parametrize("reason", [reason for reason, row in ROWS.items() if "Create" in row])
def test_a_create_that_failed_so_left_behind_what_the_page_says(reason: Reason) -> None:
    column = "Tool outputs" if reason is Reason.TOOL_OUTPUTS_REFUSED else "Create"
    left = {outcome for _, outcome in by_reason(column).get(reason, ())}
    if reason in (Reason.CREATE_OUTCOME_UNKNOWN, Reason.FINDING):
        left = {"unknown"}
    assert ROWS[reason]["Create"] == (" or ".join(sorted(left)) or "not sent")


# What the conditions say


def texts() -> Iterator[str]:
    """All texts in the operator's code, in the pieces between what is filled in."""
    for file in sorted((ROOT / "operator/openairun_operator").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from re.split(r"\{\w*\}", node.value)


TEXTS = list(texts())


@pytest.mark.parametrize("reason", TROUBLES)
def test_the_condition_says_what_the_page_quotes(reason: Reason) -> None:
    quoted = re.findall(r"`([^`]*)`", TROUBLES[reason]["The condition says"])
    assert quoted
    for piece in (piece for quote in quoted for piece in quote.split("…")):
        words = re.sub(r"(?:(?<=said )|(?<=answered ))\d+", "", piece).strip(" .:,")
        assert any(words.removesuffix(":").strip() in text for text in TEXTS), piece


# What the API server answers


def test_the_numbers_about_the_api_server_are_the_codes() -> None:
    text = " ".join(PAGE.split("\n## What the API server answers\n", 1)[1].split())
    assert f"after {scheduler._FIRST_RETRY:g} s, 2 s, 4 s … up to {scheduler._MAX_RETRY:g} s" in text
    assert f"A request gets {cluster._TIMEOUT:g} s" in text
    assert f"Decides anew in {reconciler._CONFLICT_PAUSE:g} s" in text
    assert f"up to {outputs._TRIES} times at once" in text
    pauses = iter(kopf_settings._Endless())
    *first, then = [next(pauses) for _ in range(5)]
    assert f"after 1 s, {', '.join(map(str, first[1:]))} s and then every {then} s" in text
    assert f"more than {clients.MAX_ANSWER >> 20} MiB" in PAGE
