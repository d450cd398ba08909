"""`make demo` shows the whole story, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from waiting import wait_until

pytestmark = pytest.mark.cluster


@contextmanager
def demo(directory: Path, *args: str, path: str | None = None) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The demo as a process, and the file it writes to. Its own files are below `directory`."""
    said = directory / "said"
    environment = {**os.environ, "TMPDIR": str(directory), "PYTHONUNBUFFERED": "1"}
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "openairun_devkit.demo", *args],
            env=environment if path is None else environment | {"PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    with process:
        try:
            yield process, said
        finally:
            process.kill()


def nothing_is_left(directory: Path) -> bool:
    """No file of the demo's, and no process that knows of one."""
    files = [each.name for each in directory.iterdir() if each.name.startswith("openairun-")]
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return not files and f"{directory}/openairun-" not in running


@pytest.mark.parametrize("kubectl", [True, False], ids=["with kubectl", "without kubectl"])
def test_the_demo_shows_the_whole_story(kubectl: bool, tmp_path: Path) -> None:
    directory = tmp_path / "a folder"  # with a space in its name
    directory.mkdir()
    with demo(directory, path=None if kubectl else str(tmp_path)) as (process, file):
        assert process.wait(60) == 0, file.read_text()
    said = file.read_text()
    assert ("$ kubectl get openairuns --watch" in said) == kubectl
    ends = {"hello": "Completed", "hello-assistant": "Completed", "sales": "Completed", "fails": "Failed"}
    for name, phase in ends.items():
        assert re.search(rf"^{name} +{phase} ", said, re.MULTILINE)
    assert "You said: Say hello in one sentence." in said
    assert re.search(r"Normal +Cancelled +openairun/long ", said)
    assert re.search(r"At OpenAI the run of the deleted resource, resp_\w+, is cancelled", said)
    assert nothing_is_left(directory)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "under way"])
def test_ctrl_c_ends_the_demo_and_all_that_it_started(kept: bool, tmp_path: Path) -> None:
    with demo(tmp_path, *(["--keep"] if kept else [])) as (process, file):
        text = "export KUBECONFIG=" if kept else "The operator runs"
        wait_until(lambda: text in file.read_text() or process.poll() is not None, 60, text)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == (0 if kept else 130), file.read_text()
    said = file.read_text()
    assert said.splitlines()[-1] == "Stopped."
    assert kept == bool(re.search(r"^The operator's log: .*/operator\.log$", said, re.MULTILINE))
    assert nothing_is_left(tmp_path)


def test_ctrl_c_while_the_demo_still_loads_shows_no_traceback(tmp_path: Path) -> None:
    with demo(tmp_path) as (process, file):
        wait_until(lambda: [*tmp_path.glob("openairun-demo-*")] or process.poll() is not None, 20, "its folder")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (130, -signal.SIGINT), file.read_text()  # a shell shows 130 for both
    assert file.read_text().splitlines() == ["", "Stopped."]
    assert nothing_is_left(tmp_path)
