"""What the pages tell people to type does what they say of it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def commands(text: str, heading: str) -> str:
    """The first block of shell commands under a heading."""
    section = text.split(f"\n## {heading}\n", 1)[1]
    return section.split("```sh\n", 1)[1].split("```", 1)[0]


@pytest.mark.parametrize("fails", ["apply", "Finished", "Succeeded", "nothing"])
def test_a_pipeline_is_red_on_a_time_out_and_on_a_failed_run(fails: str, tmp_path: Path) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\necho "kubectl $*"\ncase "$*" in *"$FAILS"*) exit 1;; esac\n')
    kubectl.chmod(0o755)
    script = commands((ROOT / "docs/gitops.md").read_text(), "`kubectl wait` in pipelines")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "FAILS": fails}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=10)
    assert (done.returncode == 0) == (fails == "nothing")
    assert ("kubectl get" in done.stdout) == (fails == "nothing")


def test_the_readmes_kustomization_sets_the_image_and_changes_nothing_else(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    section = README.split("\n## Install in a cluster\n", 1)[1]
    (script,) = re.findall(r"^mkdir -p deploy/mine\n.*?^END\n", section, re.MULTILINE | re.DOTALL)
    subprocess.run(["bash", "-ec", script], cwd=tmp_path, check=True, timeout=10)

    def rendered(folder: str) -> str:
        command = ["kubectl", "kustomize", f"deploy/{folder}"]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=30).stdout

    image = re.search(r"^docker push (\S+)$", section, re.MULTILINE)
    assert image
    assert rendered("mine") == rendered("overlays/cluster").replace(
        "image: openairun-operator:0.1.0", f"image: {image[1]}"
    )
    assert f"image: {image[1]}" in rendered("mine")


def test_every_wait_says_how_long() -> None:
    """kubectl waits 30 s unless it is told."""
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for line in re.findall(r"^\$? ?(kubectl wait .*)$", page.read_text(), re.MULTILINE):
            assert "--timeout=" in line, f"{page.name}: {line}"
