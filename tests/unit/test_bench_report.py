"""What is said of flights that were stopped, broken off, or too slow: all that was measured, and no more."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from figures import ROWS, cpu_a_poll, rss_in_flight
from meters import Yardstick
from plot import draw
from report import report
from verdicts import growing, verdicts


def window(cpu: float = 1.0) -> dict[str, Any]:
    return {
        "seconds": 10.0,
        "cpu_s": {"operator": cpu, "kube-apiserver": 2.0, "etcd": 1.0},
        "rss": {"operator": 200 * 2**20, "kube-apiserver": 2**29, "etcd": 2**26},
        "openai": {"retrieve": 200},
        "api": {},
    }


def flight(operator: str = "ours", n: int = 100) -> dict[str, Any]:
    """One that was flown to its end, and missed nothing."""
    start = window() | {"rss": {"operator": 100 * 2**20, "kube-apiserver": 2**29, "etcd": 2**26}}
    crowd = {"window": window(), "whole": True, "took": n / 25, "applied": 1.0}
    life = {"count": 100, "rate": 5.0, "cpu_ms": 40.0, "writes": {"status": 300}, "events": {"Created": 100}}
    return {
        "operator": operator,
        "n": n,
        "interval": 5.0,
        "missed": [],
        "complete": True,
        "start": {"window": start, "took": 3.0},
        "create": crowd,
        "hold": {"window": window(), "wanted_polls": 200},
        "finish": {"window": window(), "whole": True, "over": 10, "median": 2.0, "p99": 4.0, "delays": [2.0, 4.0]},
        "restart": {
            "rss_finished": 150 * 2**20,
            "second_crowd": crowd,
            "whole": True,
            "first": 2.0,
            "took": 6.0,
            "rss": {"operator": 200 * 2**20},
            "created": 0,
            "idle_polls": 0,
            "api": {},
        },
        "delete": {
            "window": window(),
            "whole": True,
            "running": n,
            "took": 3.0,
            "gone": 3.0,
            "command": 2.0,
            "rss": {"operator": 110 * 2**20},
        },
        "lives": {
            "window": window(),
            "whole": True,
            **life,
            "one": [[0.1, ["status.phase"]]],
            "median": 1.0,
            "p99": 3.0,
        },
        "again": {"crowd": crowd, "whole": True, "rss": {"operator": 112 * 2**20}, "most_rss": 210 * 2**20},
        "seconds": 100.0,
    }


def results(*flights: dict[str, Any], **more: Any) -> dict[str, Any]:
    circumstances = {"cluster": "Kubernetes v1.36.2", "commit": "abcdef0123", "dirty": False, "cores": 2}
    versions = {"memory": 2**34, "python": "3.11", "kopf": "1", "openai": "3", "at": "2026-11-22T00:00:00Z"}
    return {**circumstances, **versions, "flights": list(flights), **more}


def stopped(in_phase: str, **found: Any) -> dict[str, Any]:
    """Ours with 1,000 runs, stopped in a phase of which so much was found."""
    every = flight(n=1000)
    names = list(every)
    for later in names[names.index(in_phase) :]:
        del every[later]
    return every | {in_phase: found, "complete": False, "during": in_phase}


def said(of: dict[str, Any]) -> dict[str, bool | None]:
    return {verdict.what: verdict.met for verdict in verdicts(of)}


def figure(title: str, of: dict[str, Any]) -> float | None:
    return next(row.figure(of) for row in ROWS if row.title == title)


PHASES = ("start", "create", "hold", "finish", "restart", "delete", "lives", "again")


@pytest.mark.parametrize("phase", PHASES)
def test_a_flight_that_is_stopped_in_any_phase_is_reported(phase: str) -> None:
    part = {"finished": {"took": None}} if phase == "delete" else {}
    found = results(flight(), flight("baseline"), stopped(phase, **part))
    text = report(json.loads(json.dumps(found)))
    assert "## N = 1,000" in text
    assert f"- ours, N=1000: stopped in {phase}" in text


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_that_was_broken_off_is_reported(phase: str) -> None:
    found = flight() | {phase: {"whole": False}, "missed": [f"{phase}: broken off after 60 s"]}
    text = report(results(found, flight("baseline")))
    assert f"- ours, N=100: {phase}: broken off after 60 s" in text
    assert said(results(found))["N=100: all deadlines of the bench kept"] is False


def test_a_flight_that_has_not_begun_is_reported() -> None:
    found = results({"operator": "ours", "n": 100, "interval": 5.0, "missed": [], "complete": False})
    assert "- ours, N=100: stopped in its beginning" in report(found)


def test_results_of_a_bench_that_did_not_mark_what_is_complete_are_read() -> None:
    old = flight()
    del old["complete"]
    text = report(results(old))
    assert "Not flown to the end" not in text
    assert "NOT MET" not in text


def test_a_baseline_that_died_is_named_with_the_first_line_of_why() -> None:
    died = flight("baseline") | {"complete": False, "during": "hold", "error": "baseline ended with 1:\nTraceback"}
    text = report(results(flight(), died))
    assert text.count("baseline ended") == 1
    assert "- baseline, N=100: stopped in hold: baseline ended with 1\n" in text


def test_the_head_names_etcd_where_there_is_one() -> None:
    assert report(results(flight(), etcd="3.6.13")).startswith("On Kubernetes v1.36.2, etcd 3.6.13, commit abcdef0")
    assert report(results(flight(), etcd=None)).startswith("On Kubernetes v1.36.2, commit")


def test_what_is_not_whole_has_no_figure_that_is_a_sum() -> None:
    missed = flight()
    for phase in ("create", "finish", "delete", "lives"):
        missed[phase] |= {"whole": False}
    assert cpu_a_poll(missed) == pytest.approx(5.0)
    assert figure("delay until the status says finished, median", missed) == 2.0
    assert rss_in_flight(missed) is None
    for row in ROWS:
        if row.title.startswith(
            ("CPU to", "CPU a whole", "RSS a finished", "PATCHes a whole", "Events a whole", "API")
        ):
            assert row.figure(flight()) is not None
            assert row.figure(missed) is None, row.title


def test_lives_that_were_stopped_before_they_were_counted_have_no_figures() -> None:
    text = report(results(stopped("lives", rss={"operator": 2**27})))
    assert "stopped in lives" in text


def test_how_fast_the_machine_was_is_shown_on_average_over_all_that_was_measured() -> None:
    one = flight() | {"restart": {}, "again": {}}
    one["create"]["window"] |= {"seconds": 30.0, "yardstick_ms": 4.0, "stolen_s": 0.0}
    one["hold"]["window"] |= {"seconds": 10.0, "yardstick_ms": 8.0, "stolen_s": 4.0}
    assert figure("the machine: CPU for one piece of work, always the same", one) == 5.0
    assert figure("the machine: what its host gave to others, of one core", one) == 10.0
    assert "| ours, N=100, hold | 10 | 10 %, 200 | 20 %, 512 | 10 %, 64 | 0 % | 8.00 |" in report(results(one))


def test_a_bench_in_several_sittings_says_so() -> None:
    assert "the first of 2 sittings" in report(results(flight(), sittings=2))
    assert "sittings" not in report(results(flight()))


def test_the_yardstick_counts_from_one_reading_to_the_next() -> None:
    assert Yardstick(1.0, 10).since(Yardstick(0.5, 5)) == 100.0
    assert Yardstick(1.0, 10).since(Yardstick(1.0, 10)) is None
    once = Yardstick().once_more()
    assert once.times == 1
    assert once.spent > 0


def test_memory_after_a_restart_needs_a_whole_crowd() -> None:
    missed = copy.deepcopy(flight())
    assert figure("RSS a run in flight, after a restart", missed) == pytest.approx(512)
    missed["restart"]["second_crowd"]["whole"] = False
    assert figure("RSS a run in flight, after a restart", missed) is None


def test_a_time_that_its_phase_missed_was_too_long() -> None:
    missed = flight()
    missed["delete"] |= {"whole": False, "took": None}
    assert said(results(missed))["N=100: all cancelled <= 120 s"] is False


def test_what_a_stopped_flight_did_not_come_to_is_not_judged() -> None:
    found = said(results(stopped("delete", running=1000)))
    assert found["N=1000: all deadlines of the bench kept"] is None
    assert found["N=1000: restart: all polled again <= 15 s"] is True
    assert found["N=1000: all cancelled <= 120 s"] is None
    assert "N=1000: PATCHes a life <= 7" not in found


def test_memory_of_less_than_one_arena_is_no_beginning_of_a_growth() -> None:
    small, large = flight(n=100), flight(n=5000)
    small["restart"]["rss_finished"] = (100 * 2**20) + 90 * 2**10
    large["restart"]["rss_finished"] = (100 * 2**20) + 18 * 2**20
    powers = {row.title: exponent for row, exponent in growing([small, large])}
    assert powers["RSS a finished run, after a restart"] == pytest.approx(-0.26, abs=0.01)


def test_growth_is_judged_up_to_the_last_flight_that_came_to_the_row() -> None:
    last = stopped("restart")
    every = [flight(n=100), flight(n=500), last]
    rows = {row.title: exponent for row, exponent in growing(every)}
    assert rows["create N: until all show their run"] == pytest.approx(0)
    assert rows["restart: until all are polled"] == pytest.approx(-1)  # from 100 to 500
    missed = flight(n=1000)
    missed["restart"]["took"] = None
    rows = {row.title: exponent for row, exponent in growing([flight(n=100), flight(n=500), missed])}
    assert rows["restart: until all are polled"] is None
    assert [exponent for _, exponent in growing([flight(), stopped("start")])] == [None] * len(rows)


def test_a_plot_needs_no_whole_flights(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for phase in PHASES:
        assert draw(results(stopped(phase), flight("baseline")), tmp_path / "plot.svg")


def test_memory_that_grows_with_each_crowd_is_seen() -> None:
    what = "N=100: RSS that N more took beyond the first <= 4 MiB"
    more = flight()
    assert said(results(more))[what] is True
    more["again"]["rss"]["operator"] = 115 * 2**20
    assert said(results(more))[what] is False
    assert figure("RSS when N more were deleted, beyond that at the start", more) == pytest.approx(15)
    assert figure("RSS at most since the restart, beyond that at the start", more) == pytest.approx(110)
    more["again"]["crowd"] = more["again"]["crowd"] | {"whole": False}
    assert said(results(more))[what] is None
    assert figure("RSS when N more were deleted, beyond that at the start", more) is None
