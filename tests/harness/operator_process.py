"""The operator as a process, as a cluster would run it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from fork_server import KUBECONFIG, start
from waiting import wait_until

from openairun_devkit.controlplane import kill_group

READY_LINE = "watching openairuns"


class OperatorProcess:
    """`openairun-operator run …` in a folder of its own, where its kubeconfig lies."""

    def __init__(self, directory: Path, args: Sequence[str], env: Mapping[str, str], key_file: Path) -> None:
        self.key_file = key_file
        self.args = list(args)
        self.log_file = directory / "operator.log"
        self.log_file.touch()
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        own = {"HOME": str(directory), "KUBECONFIG": KUBECONFIG, "PYTHONUNBUFFERED": "1"}
        self._process = start("openairun_operator", ["run", *args], directory, kept | own | dict(env), self.log_file)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def logs(self) -> str:
        """All it has written so far, on stdout and stderr."""
        return self.log_file.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self, timeout: float = 30) -> OperatorProcess:
        """Wait until it watches; `timeout` in seconds."""
        self.wait_for_log(READY_LINE, timeout)
        return self

    def wait_for_log(self, text: str, timeout: float = 30) -> None:
        """Wait until `text` is in the log; fails at once if the operator ends without writing it."""

        def seen_or_ended() -> bool:
            return text in self.logs or not self.running

        wait_until(seen_or_ended, timeout, f"{text!r} in the operator's log")
        if text not in self.logs:
            raise AssertionError(
                f"the operator ended with {self._process.poll()} and never wrote {text!r}:\n{self.logs}"
            )

    def kill9(self) -> None:
        """Kill it as the kernel would."""
        kill_group(self._process)

    def stop(self, timeout: float = 15) -> int:
        """Ask it to end, as the kubelet does, and return its exit code; it has `timeout` seconds."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill9()
            raise AssertionError(f"the operator did not end within {timeout:g} s of SIGTERM") from None

    def survivors(self) -> bool:
        """Whether the operator or a child of it still runs."""
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True
