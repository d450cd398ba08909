"""Who is measured: this project's operator and the baseline, each as a process of its own."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fork_server import spawn

import openairun_operator
from openairun_devkit.controlplane import kill_group

_KEY = "sk-standin"


@dataclass(frozen=True)
class Kind:
    """A custom resource."""

    group: str
    version: str
    name: str
    plural: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}"

    def body(self, name: str, interval: float, labels: Mapping[str, str]) -> dict[str, Any]:
        """An object: the same one for both, so that they are of one size."""
        spec = {
            "model": "gpt-5-mini",
            "instructions": "You analyse data. Compare the last two quarters, and say what a manager should ask next.",
            "input": "Sales by quarter: 120, 132, 129, 151. What do they show?",
            "metadata": {"team": "bench"},
            "pollingInterval": f"{interval:g}s",
            "timeout": "24h",
        }
        return {
            "apiVersion": self.api_version,
            "kind": self.name,
            "metadata": {"name": name, "labels": dict(labels)},
            "spec": spec,
        }


@dataclass(frozen=True)
class Contestant:
    """An operator to measure."""

    name: str
    kind: Kind
    program: Sequence[str]
    """After the interpreter; the namespace comes after it, then `arguments`."""
    arguments: Sequence[str] = ()

    def start(self, directory: Path, namespace: str, url: str, interval: float) -> Operator:
        """Start it in `directory`, where its kubeconfig lies. It asks OpenAI at `url`."""
        own = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": str(Path(openairun_operator.__file__).parents[1]),  # the one that the bench speaks of
            "HOME": str(directory),
            "KUBECONFIG": str(directory / "kubeconfig"),
            "OPENAI_API_KEY": _KEY,
            "OPENAI_BASE_URL": url,
            "POLL_INTERVAL": f"{interval:g}",  # the baseline has it for all alike
        }
        command = [sys.executable, *self.program, f"--namespace={namespace}", *self.arguments]
        return Operator(command, directory, own)


class Operator:
    """A running operator."""

    def __init__(self, command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
        self.log = directory / "operator.log"
        self.started = time.time()
        self._process = spawn(command, directory, environment, self.log)
        self.pid = self._process.pid
        self.killed = False
        """By us: else, once it has ended, it died."""

    @property
    def ended(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._process.poll()

    def kill(self) -> None:
        """Kill it, as the kernel would."""
        self.killed = True
        kill_group(self._process)


OURS = Contestant(
    "ours",
    Kind("openairun.dev", "v1alpha1", "OpenAIRun", "openairuns"),
    ("-m", "openairun_operator", "run"),
    ("--requests-per-minute=0",),
)
BASELINE = Contestant(
    "baseline",
    Kind("bench.openairun.dev", "v1", "NaiveRun", "naiveruns"),
    ("-m", "kopf", "run"),
    (str(Path(__file__).with_name("baseline.py")),),
)
CONTESTANTS = {each.name: each for each in (OURS, BASELINE)}
