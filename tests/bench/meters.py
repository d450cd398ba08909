"""What things cost: CPU and memory of processes from /proc, requests from the servers that were asked."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAUSE = 1.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SERIES = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def cpu(pid: int) -> float:
    """Seconds of CPU, user and system, without children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


def all_cpu() -> float:
    """Seconds of CPU that the whole machine has spent; what its host took is not among them."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) * _TICK


def stolen() -> float:
    """Seconds in which the machine had work, and its host another guest's."""
    return int(Path("/proc/stat").read_text().split()[8]) * _TICK


def rss(pid: int) -> int:
    """Resident bytes, shared ones included (`statm`)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def most_rss(pid: int) -> int:
    """The most resident bytes that it has had (`VmHWM`)."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def children(pid: int) -> dict[str, int]:
    """The processes that `pid` started, by the names of their programs."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found[Path(f"/proc/{child}/comm").read_text().strip()] = int(child)
    return found


def api_requests(metrics: str, plurals: tuple[str, ...]) -> Counter[str]:
    """From kube-apiserver's metrics: how many requests for objects of these kinds, as `PATCH openairuns/status`.

    Those that were refused bear their code. A watch counts when it ends.
    """
    counts: Counter[str] = Counter()
    for labels, value in _SERIES.findall(metrics):
        label = dict(_LABEL.findall(labels))
        if label["resource"] in plurals:
            what = "/".join(part for part in (label["resource"], label["subresource"]) if part)
            refused = "" if label["code"].startswith("2") else f" ({label['code']})"
            counts[f"{label['verb']} {what}{refused}"] += int(float(value))
    return counts


@dataclass(frozen=True)
class Yardstick:
    """How much CPU a fixed piece of work has taken so far, in seconds, and how often it was done.

    On a machine that shares its cores with others the same work takes now more, now less: so do all figures then.
    """

    spent: float = 0.0
    times: int = 0

    def once_more(self) -> Yardstick:
        began = time.thread_time()
        sum(number * number for number in range(50_000))
        return Yardstick(self.spent + time.thread_time() - began, self.times + 1)

    def since(self, earlier: Yardstick) -> float | None:
        """Milliseconds it took on average."""
        times = self.times - earlier.times
        return 1000 * (self.spent - earlier.spent) / times if times else None


@dataclass(frozen=True)
class Reading:
    """Everything at one moment."""

    at: float
    cpu: Mapping[str, float]
    machine: float
    """What the whole machine has spent, those here and all others."""
    stolen: float
    yardstick: Yardstick
    rss: Mapping[str, int]
    openai: Mapping[str, int]
    """Requests by kind."""
    api: Mapping[str, int] | None
    """Requests to the API server by kind; None where nobody counts them."""

    def until(self, later: Reading) -> dict[str, Any]:
        """What was spent between two readings; an operator that was started in between has spent all it has."""
        spent = {name: total - self.cpu.get(name, 0.0) for name, total in later.cpu.items()}
        window: dict[str, Any] = {
            "cpu_s": spent,
            "others_cpu_s": max(later.machine - self.machine - sum(spent.values()), 0.0),
            **self.machine_until(later),
            "rss": dict(later.rss),
            "openai": _difference(self.openai, later.openai),
        }
        if self.api is not None and later.api is not None:
            window["api"] = _difference(self.api, later.api)
        return window

    def machine_until(self, later: Reading) -> dict[str, Any]:
        """How the machine was between two readings."""
        return {
            "seconds": later.at - self.at,
            "stolen_s": later.stolen - self.stolen,
            "yardstick_ms": later.yardstick.since(self.yardstick),
        }


def _difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in sorted(after.items()) if count > before.get(name, 0)}


@dataclass
class Meter:
    """Reads the processes, by their names here."""

    pids: dict[str, int] = field(default_factory=dict)
    yardstick: Yardstick = Yardstick()

    async def watch_the_machine(self) -> None:
        """Measure how fast it is, again and again."""
        while True:
            self.yardstick = self.yardstick.once_more()
            await asyncio.sleep(_PAUSE)

    def read(self, openai: Mapping[str, int], api: Mapping[str, int] | None) -> Reading:
        return Reading(
            time.time(),
            {name: cpu(pid) for name, pid in self.pids.items()},
            all_cpu(),
            stolen(),
            self.yardstick,
            {name: rss(pid) for name, pid in self.pids.items()},
            dict(openai),
            api,
        )


def memory() -> int:
    """The machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * _PAGE
