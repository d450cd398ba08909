"""Operators and OpenAI stand-ins, forked from a process that has loaded them: that costs seconds of CPU, a fork none.

Run as a program it is that process: it reads an order a line, and answers with the pid of what it started.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openairun_devkit.controlplane import die_with_parent

KUBECONFIG = "kubeconfig"
"""In the folder where an operator starts: `kubernetes` reads the variable when it is loaded, which is before that."""


class Forked:
    """What was started: a child of the fork server, not of ours, so how it ended stands in a file.

    It has what the tests need of `subprocess.Popen`.
    """

    def __init__(self, pid: int, ended: Path) -> None:
        self.pid = pid
        self._ended = ended

    def poll(self) -> int | None:
        return int(self._ended.read_text()) if self._ended.exists() else None

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class ForkServer:
    """It ends with the process that made it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "KUBECONFIG": KUBECONFIG},
            process_group=0,
            preexec_fn=die_with_parent(),
        )

    def start(self, program: str, args: Sequence[str], directory: Path, env: Mapping[str, str], log: Path) -> Forked:
        """See `start`."""
        ended = directory / "ended"
        order = {"program": program, "args": list(args), "directory": str(directory), "env": dict(env), "log": str(log)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(order | {"ended": str(ended)}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the fork server ended; what it said is on stderr")
        return Forked(int(answer), ended)


@functools.cache
def fork_server() -> ForkServer:
    """One for all tests of this process."""
    return ForkServer()


def start(
    program: str, args: Sequence[str], directory: Path, env: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes] | Forked:
    """`python -m PROGRAM ARGS` in `directory` and a process group of its own, with `env` and no more of ours."""
    # Where other code is to be loaded, a process that has loaded ours is of no use.
    if sys.platform == "linux" and env.get("PYTHONPATH") == os.environ.get("PYTHONPATH"):
        return fork_server().start(program, args, directory, env, log)
    return spawn([sys.executable, "-m", program, *args], directory, env, log)


def spawn(command: Sequence[str], directory: Path, env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """`command` in `directory` and a process group of its own, with `env` and no more of ours. It dies with us."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=directory,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=die_with_parent(),
        )


# As a program


def _next_child() -> dict[str, Any] | None:
    """Serve; returns in each child, with its order, and when there are no more orders, with None."""
    endings: dict[int, Path] = {}

    def reap(*_: object) -> None:
        while endings:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            ended = endings.pop(pid)
            written = ended.with_suffix(".written")
            written.write_text(str(os.waitstatus_to_exitcode(status)))
            written.rename(ended)

    signal.signal(signal.SIGCHLD, reap)
    end_with_us = die_with_parent()
    while line := sys.stdin.readline():
        order: dict[str, Any] = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            os.setpgid(0, 0)
            end_with_us()
            return order
        os.setpgid(pid, pid)  # here too: it may be killed as a group before it comes to that
        endings[pid] = Path(order["ended"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
    return None


def _main() -> None:
    import kubernetes.config  # kopf loads it once it runs

    import openairun_operator.assembly
    from openairun_devkit.openai.__main__ import main as openai
    from openairun_operator.__main__ import main as operator

    programs = {"openairun_devkit.openai": openai, "openairun_operator": operator}
    del kubernetes, openairun_operator  # loaded is all they should be

    gc.freeze()  # else each child's first collection copies all that was loaded
    if (order := _next_child()) is None:
        return
    null, log = os.open(os.devnull, os.O_RDONLY), os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["env"])
    programs[order["program"]](order["args"])


if __name__ == "__main__":
    _main()
