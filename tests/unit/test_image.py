"""The image, as far as it can be checked without an engine: its RUN steps in clean environments, and what they make."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, in order, with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(verb, rest) for verb, _, rest in (line.partition(" ") for line in lines)]


DOCKERFILE = instructions()
FINAL = DOCKERFILE[max(i for i, (verb, _) in enumerate(DOCKERFILE) if verb == "FROM") :]


def final(verb: str) -> str:
    """What the last stage says for `verb`, which it says once."""
    (said,) = [rest for each, rest in FINAL if each == verb]
    return said


@dataclass(frozen=True)
class Image:
    """What the build stage left: `venv` is the image's /venv, `dist` its /dist."""

    base: Path
    venv: Path
    dist: Path
    environment: dict[str, str]
    """The build stage's."""

    def pip(self, *args: str) -> str:
        """What the build stage's pip says of /venv."""
        command = ["python", "-m", "pip", "--python", str(self.venv / "bin/python"), *args]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the image with the last stage's environment and no other: no HOME, no user's name."""
        pairs = dict(pair.split("=", 1) for pair in final("ENV").split())
        environment = {k: v.replace("/venv", str(self.venv)).replace(":$PATH", "") for k, v in pairs.items()}
        program = shutil.which(args[0], path=environment["PATH"])
        assert program, f"{args[0]} is not on the image's PATH"
        return subprocess.run(
            [program, *args[1:]], cwd="/", env=environment, capture_output=True, text=True, check=True, timeout=30
        )


def _python() -> str:
    """The image's version of Python where this machine has it, else the one that runs this."""
    (version,) = [rest.split("=")[1] for verb, rest in DOCKERFILE if verb == "ARG"]
    found = shutil.which(f"python{version}")
    if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
        return found
    return sys.executable


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The build stage, carried out: each RUN as written, with folders of ours for those of the image."""
    tmp = tmp_path_factory.mktemp("image")
    base, source = tmp / "base", tmp / "src"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment = kept | {"PATH": f"{base}/bin:{os.environ['PATH']}", "PIP_RETRIES": "1", "PIP_TIMEOUT": "15"}
    image = Image(base, tmp / "venv", tmp / "dist", environment)
    source.mkdir()
    subprocess.run([_python(), "-m", "venv", str(base)], env=kept, check=True, timeout=60)
    for verb, rest in DOCKERFILE[1 : -len(FINAL)]:
        if verb == "COPY":
            *files, to = rest.split()
            for file in files:
                if (ROOT / file).is_dir():
                    shutil.copytree(ROOT / file, source / to, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / file, source / to)
        elif verb == "RUN":
            command = re.sub(r"(?<=[ ])/(venv|dist)\b", rf"{tmp}/\1", rest)
            done = subprocess.run(
                ["/bin/sh", "-ec", command], cwd=source, env=environment, capture_output=True, text=True, timeout=180
            )
            said = done.stdout + done.stderr
            if done.returncode and "connection broken by" in said:
                pytest.skip("the package index cannot be reached")
            assert done.returncode == 0, f"{rest}\n{said}"
    return image


def test_the_lock_is_installed_and_satisfied(image: Image) -> None:
    assert "No broken requirements" in image.pip("check")
    listed = json.loads(image.pip("list", "--format=json"))
    normal = {re.sub(r"[-_.]+", "-", each["name"]).lower(): each["version"] for each in listed}
    locked = dict(re.findall(r"^([a-z0-9.-]+)(?:\[[^]]*\])?==([^ ;]+)", (ROOT / "requirements.lock").read_text(), re.M))
    assert normal.pop(PROJECT["name"]) == PROJECT["version"]
    assert normal.items() <= locked.items(), "something that is not in the lock came along"
    wanted = {re.split(r"[\[<>=~]", line)[0] for line in PROJECT["dependencies"]}
    assert wanted <= normal.keys()


def test_nothing_is_installed_without_its_hash() -> None:
    installs = [rest for verb, rest in DOCKERFILE if verb == "RUN" and re.search(r"\b(pip|uv|apt-get|apk)\b", rest)]
    installs = [rest for rest in installs if not rest.startswith("python -m venv")]
    assert len(installs) == 4
    for rest in installs:
        own = "--no-deps" in rest and (rest.endswith("/dist/*.whl") or "pip wheel" in rest)
        assert own or "--require-hashes" in rest, rest


def test_the_wheel_holds_the_product_alone(image: Image) -> None:
    (wheel,) = image.dist.iterdir()
    names = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(wheel)], check=True, capture_output=True, text=True
    ).stdout.splitlines()[1:]
    roots = {name.split("/")[0] for name in names}
    assert {root.split("-")[0] for root in roots} == {"openairun_operator"}
    assert not list(image.venv.rglob("openairun_devkit"))


def test_the_entry_point_starts(image: Image) -> None:
    (program,) = json.loads(final("ENTRYPOINT"))
    assert image.run(program, "version").stdout.strip() == PROJECT["version"]
    crds = list(yaml.safe_load_all(image.run(program, "crd").stdout))
    assert [crd["kind"] for crd in crds] == ["CustomResourceDefinition"] * 2
    (command,) = json.loads(final("CMD"))
    assert "--api-key-file" in image.run(program, command, "--help").stdout


def test_all_that_it_imports_is_there_and_nothing_is_written(image: Image) -> None:
    def files() -> dict[Path, Any]:
        return {path: path.stat().st_mtime_ns for path in image.venv.rglob("*")}

    before = files()
    image.run("python", "-c", "import openairun_operator.__main__, openairun_operator.assembly")
    assert files() == before
    assert list(image.venv.rglob("openairun_operator/__pycache__/*.pyc")), "bytecode is compiled at build time"


def test_the_user_is_the_deployments_in_numbers() -> None:
    deployment = yaml.safe_load((ROOT / "deploy/manifests/deployment.yaml").read_text())
    context = deployment["spec"]["template"]["spec"]["securityContext"]
    assert final("USER") == f"{context['runAsUser']}:{context['runAsGroup']}"
    assert final("USER").replace(":", "").isdigit()


def test_the_deployments_tag_is_this_version_and_its_args_begin_with_a_command() -> None:
    deployment = yaml.safe_load((ROOT / "deploy/manifests/deployment.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{PROJECT['name']}:{PROJECT['version']}"
    assert "command" not in container, "the image's ENTRYPOINT is the program"
    assert container["args"][0] == "run"


def test_the_context_holds_what_is_copied_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines.index("*") < min(lines.index(line) for line in lines if line.startswith("!"))
    let_in = {line[1:] for line in lines if line.startswith("!")} - {"operator"}
    copied = {file for verb, rest in DOCKERFILE[: -len(FINAL)] if verb == "COPY" for file in rest.split()[:-1]}
    assert let_in == copied
    assert lines.index("!operator") < lines.index("operator/*") < lines.index("!operator/openairun_operator")
