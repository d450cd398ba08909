"""The layout keeps out of Python's way, and out of the image what does not belong there."""

import operator
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_standard_library_operator_is_not_shadowed() -> None:
    assert Path(str(operator.__file__)).parent == Path(sysconfig.get_path("stdlib"))
    assert not (ROOT / "operator/__init__.py").exists()


def test_it_is_not_shadowed_for_a_program_started_in_the_root_either() -> None:
    command = [sys.executable, "-c", "import operator; print(operator.add(1, 1))"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "2\n"


def test_the_wheel_holds_the_product_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["operator/openairun_operator"]


def pinned(lock: str) -> set[str]:
    """The requirements of a lock, without hashes; each has at least one."""
    lines = (ROOT / lock).read_text().splitlines()
    requirements = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert all("==" in line for line in requirements)
    assert sum("--hash=sha256:" in line for line in lines) >= len(requirements)
    return {line.rstrip(" \\") for line in requirements}


def test_the_bench_is_pinned_beside_the_rest() -> None:
    assert pinned("requirements-bench.lock")
    versions = dict(line.split(";")[0].strip().split("==") for line in pinned("requirements-dev.lock"))
    for line in pinned("requirements-bench.lock"):
        name, version = line.split(";")[0].strip().split("==")
        assert versions.get(name, version) == version, "make lock"


def test_the_locks_are_pinned_and_hashed_and_agree() -> None:
    image, build, dev = map(pinned, ("requirements.lock", "requirements-build.lock", "requirements-dev.lock"))
    assert len(image) > 20
    assert image | build <= dev, "make lock"
