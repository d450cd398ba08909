"""The bench: what the operator costs and how fast it is, beside an operator that was written in an afternoon.

`make bench`; docs/performance.md says what it does and holds a table that it printed. Nothing limits the rate of
requests to OpenAI here: the bench is after the operator's own limits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import world
from apiserver import Cluster
from contestants import CONTESTANTS, OURS
from flight import PHASES, Flight
from limits import FINISHES, MANY, MANY_FINISHES, Limits, spread
from meters import memory
from plot import draw
from report import report, where
from series import fly_all, still_to_fly
from standin import shapes
from verdicts import verdicts
from world import World

import openairun_operator

_ROOT = Path(__file__).parents[2]
_SIZES = (100, 500, 1000, 5000)
_BASELINE_TO = 1000


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _phases(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    if unknown := set(chosen) - set(PHASES):
        raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(PHASES)}")
    return chosen


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    sizes = ",".join(map(str, _SIZES))
    add("--sizes", type=_numbers, default=_SIZES, help=f"runs in flight ({sizes}; the baseline to {_BASELINE_TO})")
    add("--only", choices=sorted(CONTESTANTS), help="measure this one alone")
    add("--phases", type=_phases, default=PHASES, help=f"after creating: some of {','.join(PHASES)} (all)")
    add("--interval", type=float, help=f"seconds between two polls of a run (5; 10 for more than {MANY} runs)")
    rates = f"{FINISHES:g}; {MANY_FINISHES:g} for more than {MANY} runs"
    add("--finishes", type=float, help=f"at most so many runs finish in a second ({rates})")
    add("--cluster", choices=("auto", "standin", "real"), default="auto", help="auto: the real one where it is found")
    add("--out", type=Path, default=_ROOT / "bench-results", help="the folder for what comes of it (bench-results)")
    add("--logs", type=Path, help="a folder in which the operators' logs stay (none)")
    add("--go-on", type=Path, metavar="FILE", help="take from FILE the sizes that were flown to the end there")
    add("--replot", type=Path, metavar="FILE", help="measure nothing: print and draw what FILE holds")
    add("--strict", action="store_true", help="end with 1 if a verdict is not met")
    arguments = parser.parse_args()
    if arguments.go_on and arguments.only:
        parser.error("--go-on flies both anew where one is missing: leave out --only")
    return arguments


def _git(*args: str) -> str:
    return subprocess.run(["git", *args], cwd=_ROOT, capture_output=True, text=True, check=False).stdout.strip()


def _circumstances(arguments: argparse.Namespace) -> dict[str, Any]:
    """What whoever compares two results wants to know."""
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": shlex.join(["bench.py", *sys.argv[1:]]),
        "asked": {name: getattr(arguments, name) for name in ("interval", "finishes")}
        | {"phases": [*arguments.phases]},
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "operator": str(Path(openairun_operator.__file__).parent),
        "machine": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": memory(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "kopf": version("kopf"),
        "openai": version("openai"),
        "rate_limits": "off",
    }


_SAME = ("commit", "dirty", "operator", "asked", "cores", "processor", "python", "kopf", "openai")
"""What must be the same to go on with what was measured before."""


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _check_shapes() -> None:
    """The stand-in must speak as OpenAI does, or nothing that is measured means anything."""
    from openai.types.responses import Response

    for shape in shapes():
        Response.model_validate(shape, strict=True)


def _planned(arguments: argparse.Namespace, place: World) -> Iterator[Flight]:
    """For each N ours, then the baseline."""
    for count in arguments.sizes:
        for contestant in CONTESTANTS.values():
            if arguments.only not in (None, contestant.name):
                continue
            if contestant is not OURS and count > _BASELINE_TO:
                continue
            interval = arguments.interval or (5.0 if count <= MANY else 10.0)
            yield Flight(place, contestant, Limits(count, interval, spread(count, interval, arguments.finishes)))


def _write(results: dict[str, Any], file: Path) -> None:
    """All there is so far; whoever stops the bench meanwhile finds what there was before."""
    results["verdicts"] = [verdict.__dict__ for verdict in verdicts(results)]
    written = file.with_suffix(".written")
    written.write_text(json.dumps(results))
    written.rename(file)


async def _bench(
    arguments: argparse.Namespace, cluster: Cluster, pids: dict[str, int], results: dict[str, Any], file: Path
) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.ExitStack() as stack:
        directory = arguments.logs or stack.enter_context(tempfile.TemporaryDirectory(prefix="openairun-bench-"))
        async with world.session(cluster) as session:
            place = World(cluster, session, Path(directory), pids)
            here = {"cluster": place.where, "etcd": place.etcd}
            if here != {name: results.get(name, there) for name, there in here.items()}:
                raise world.BenchError(f"{file} is of {where(results)}: measure anew")
            results |= here
            print(f"On {where(results)}; no rate limits at OpenAI; results go to {file}", flush=True)
            planned = still_to_fly(list(_planned(arguments, place)), results)
            await fly_all(planned, arguments.phases, results, lambda: _write(results, file))


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure; the answer is the results, which stand in a new file too. However it ends, it shows what there is."""
    _check_shapes()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / f"bench-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"
    circumstances = _circumstances(arguments)
    results: dict[str, Any] = {**circumstances, "flights": []}
    if arguments.go_on:
        results = json.loads(arguments.go_on.read_text())
        if different := [name for name in _SAME if results.get(name) != circumstances[name]]:
            raise world.BenchError(f"{arguments.go_on} is of another {' and '.join(different)}: measure anew")
        if circumstances["dirty"]:
            raise world.BenchError("nobody can say whether these are the changes that were measured: commit them first")
        file = arguments.go_on
        results["sittings"] = results.get("sittings", 1) + 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with world.some_cluster(arguments.cluster) as (cluster, pids):
            asyncio.run(_bench(arguments, cluster, pids, results, file))
    finally:
        if results["flights"]:
            _write(results, file)
            _show(results, file)
    return results


def _show(results: dict[str, Any], file: Path) -> None:
    """Print the report, and write it and the plot beside the file of the results."""
    text = report(results)
    print(f"\n{text}\n\n{file}")
    file.with_suffix(".md").write_text(text + "\n")
    if draw(results, file.with_suffix(".svg")):
        print(file.with_suffix(".svg"))
    else:
        print("no plot: matplotlib is missing, which `make bench` installs")


def main() -> int:
    arguments = _arguments()
    if arguments.replot:
        results = json.loads(arguments.replot.read_text())
        _show(results, arguments.replot)
    else:
        try:
            results = _run(arguments)
        except (KeyboardInterrupt, asyncio.CancelledError):
            print("stopped", file=sys.stderr)
            return 130
        except world.BenchError as error:
            print("".join(traceback.format_exception(error)), file=sys.stderr)
            return 2
    return int(arguments.strict and any(verdict.met is False for verdict in verdicts(results)))


if __name__ == "__main__":
    sys.exit(main())
