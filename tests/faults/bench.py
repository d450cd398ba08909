"""The fault bench: kills the operator at every step, plays random schedules, and counts what went wrong.

`make faults`; docs/reliability.md says what it does and holds a table that it printed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from apiserver import Cluster, own_cluster, standin_cluster
from fork_server import fork_server
from ground import FLAGS, Ground
from kill_points import Outcome, Trial, attempt, trials
from outages import CATCHES_UP, api_server_away, openai_away
from scenarios import SCENARIOS, Scenario
from schedules import Schedule
from verdict import Verdict

from openairun_devkit.controlplane import ControlPlane

Work = Callable[[Ground], None]
_TOLD = 50


@dataclass
class Row:
    """A line of the table."""

    name: str
    done: int = 0
    missed: int = 0
    """Kills whose point did not come."""
    verdict: Verdict = field(default_factory=Verdict)
    note: str = ""


class Bench:
    """Gives out work to grounds, and keeps the rows."""

    def __init__(self, cluster: Cluster, directory: Path, workers: int) -> None:
        self._cluster = cluster
        self._directory = directory
        self._workers = workers
        self._lock = threading.Lock()
        self._grounds = itertools.count()
        self.rows: dict[str, Row] = {}

    def do(self, works: Iterable[Work]) -> None:
        """Have it all done, each on one of the grounds."""
        every = list(works)
        todo = enumerate(every)
        threads = [threading.Thread(target=self._worker, args=(todo, len(every))) for _ in range(self._workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _worker(self, todo: Iterator[tuple[int, Work]], count: int) -> None:
        with self.ground() as ground:
            while True:
                with self._lock:
                    number, work = next(todo, (0, None))
                if work is None:
                    return
                if number % _TOLD == 0:
                    print(f"{number} of {count}", flush=True)
                try:
                    work(ground)
                except Exception:  # noqa: BLE001 - the others go on, and it is in the table
                    self.note("failed itself", "the bench", ground, Verdict(stuck=[traceback.format_exc()]))

    @contextlib.contextmanager
    def ground(self, flags: tuple[str, ...] = FLAGS) -> Iterator[Ground]:
        directory = self._directory / f"ground-{next(self._grounds)}"
        directory.mkdir()
        with Ground(self._cluster, directory, flags) as ground:
            yield ground

    def note(
        self, row: str, what: str, ground: Ground, verdict: Verdict, *, missed: bool = False, story: str = ""
    ) -> None:
        """Count what came of it, and say what is wrong."""
        with self._lock:
            line = self.rows.setdefault(row, Row(row))
            line.done += 1
            line.missed += missed
            line.verdict.add(verdict)
            for problem in verdict.problems:
                print(f"WRONG: {what}: {problem}\n{story}", flush=True)
            if verdict.problems:
                log = self._directory / f"{row}-{line.done}.log".replace(" ", "-")
                log.write_text(ground.logs)
                print(f"  the operators' log: {log}", flush=True)


def kill_everywhere(bench: Bench, only: str | None) -> None:
    """First each scenario in peace, then once for each point to kill at. `only` names one scenario."""
    found: dict[tuple[str, str], list[Trial]] = {}

    def in_peace(ground: Ground, scenario: Scenario, api: str) -> None:
        outcome = attempt(ground, Trial(scenario, api))
        bench.note("in peace", f"{scenario.name} over {api}", ground, outcome.verdict)
        found[scenario.name, api] = list(trials(scenario, api, outcome.steps))

    def killed(ground: Ground, trial: Trial) -> None:
        outcome: Outcome = attempt(ground, trial)
        row = f"killed: {trial.scenario.name}, {trial.api}"
        bench.note(row, str(trial), ground, outcome.verdict, missed=not outcome.reached)

    pairs = [(each, api) for each in SCENARIOS for api in each.apis if only in (None, each.name)]
    bench.do([lambda ground, pair=pair: in_peace(ground, *pair) for pair in pairs])
    # In the scenarios' order, so that what is printed can be compared.
    every = [trial for scenario, api in pairs for trial in found.get((scenario.name, api), ())]
    bench.do([lambda ground, trial=trial: killed(ground, trial) for trial in every])


def play_schedules(bench: Bench, seeds: Iterable[int]) -> None:
    def play(ground: Ground, seed: int) -> None:
        schedule = Schedule(ground, seed)
        verdict = schedule.play()
        bench.note("random schedules", f"seed {seed}", ground, verdict, story="\n".join(schedule.story))

    bench.do([lambda ground, seed=seed: play(ground, seed) for seed in seeds])


@contextlib.contextmanager
def restarts(control_plane: ControlPlane | None, every: float, row: Row) -> Iterator[None]:
    """Kill and restart the API server again and again."""
    over = threading.Event()

    def run() -> None:
        while control_plane is not None and not over.wait(every):
            control_plane.stop_apiserver()
            control_plane.start_apiserver()
            row.done += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def outages(bench: Bench, seconds: float, lease: str) -> list[threading.Thread]:
    """Begin them; each takes its time on a ground of its own."""

    def run(name: str, outage: Callable[[Ground, float], tuple[Verdict, float]]) -> None:
        with bench.ground((*FLAGS, lease) if outage is api_server_away else FLAGS) as ground:
            verdict, took = outage(ground, seconds)
            bench.note(name, name, ground, verdict)
            bench.rows[name].note = f"caught up in {took:.0f} s (at most {CATCHES_UP:.0f})"

    threads = [
        threading.Thread(target=run, args=(f"API server away for {seconds:g} s", api_server_away)),
        threading.Thread(target=run, args=(f"OpenAI away for {seconds:g} s", openai_away)),
    ]
    for thread in threads:
        thread.start()
    return threads


def table(rows: Iterable[Row]) -> str:
    """The rows, as Markdown."""
    head = ("", "done", "not reached", "said unknown", "duplicates", "lost", "stuck", "")
    lines = [head, ("---",) * len(head)]
    for row in rows:
        found = row.verdict
        counts = (row.done, row.missed, found.unknown, len(found.duplicates), len(found.losses), len(found.stuck))
        lines.append((row.name, *map(str, counts), row.note))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@contextlib.contextmanager
def some_cluster() -> Iterator[Cluster]:
    """The real API server where its binaries are found, else the stand-in."""
    binaries = ControlPlane.find()
    with own_cluster(binaries) if binaries else standin_cluster() as cluster:
        yield cluster


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=100, help="random schedules to play (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="the first one's seed (random)")
    parser.add_argument("--outage", type=float, default=600, help="seconds that a server is away (%(default)s)")
    parser.add_argument("--workers", type=int, default=6, help="operators at once (%(default)s)")
    parser.add_argument("--only", choices=[scenario.name for scenario in SCENARIOS], help="kill in this scenario alone")
    parser.add_argument("--no-outages", action="store_true", help="leave out the servers that are away")
    parser.add_argument("--no-kills", action="store_true", help="leave out the kills at every step")
    arguments = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    began, directory = time.monotonic(), Path(tempfile.mkdtemp(prefix="openairun-faults-"))
    fork_server()  # here, since it ends with the thread that began it
    with some_cluster() as cluster:
        where = f"Kubernetes {cluster.version}" if cluster.control_plane else "the stand-in cluster"
        print(f"On {where}; seeds from {arguments.seed}; logs of what goes wrong in {directory}", flush=True)
        bench = Bench(cluster, directory, arguments.workers)
        lease = f"--lease={cluster.operator_namespace}/openairun-operator"
        waiting = [] if arguments.no_outages else outages(bench, arguments.outage, lease)
        if not arguments.no_kills:
            kill_everywhere(bench, arguments.only)
        for thread in waiting:
            thread.join()
        restarted = Row("API server restarts meanwhile")
        with restarts(cluster.control_plane, 30.0, restarted):
            play_schedules(bench, range(arguments.seed, arguments.seed + arguments.schedules))
        rows = [*bench.rows.values(), restarted]
    print(f"\nOn {where}, commit {commit.strip()}, {time.monotonic() - began:.0f} s\n\n{table(rows)}")
    return int(any(row.verdict.problems for row in rows))


if __name__ == "__main__":
    sys.exit(main())
