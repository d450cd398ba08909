"""Every sample is one that an API server takes and the operator reads."""

from pathlib import Path

import pytest
import yaml

from openairun_devkit.cluster.api import Api, Options
from openairun_devkit.cluster.resources import CRDS
from openairun_operator.api.crd import custom_resource_definition
from openairun_operator.lifecycle.run import parse

SAMPLES = Path(__file__).parents[2] / "deploy/samples"
FILES = sorted(SAMPLES.rglob("*.yaml"))


@pytest.fixture(scope="module")
def api() -> Api:
    api = Api()
    api.create(CRDS, "", custom_resource_definition())
    return api


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SAMPLES)))
def test_a_sample_is_taken_as_it_is_and_read(file: Path, api: Api) -> None:
    runs = api.resources.find("openairun.dev", "v1alpha1", "openairuns")
    assert runs is not None
    sample = yaml.safe_load(file.read_text())
    made = api.create(runs, "default", sample, Options(field_validation="Strict"))
    run = parse(made)
    assert run.spec is not None, run.spec_error
    assert sample["spec"].items() <= made["spec"].items(), "nothing is pruned"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SAMPLES)))
def test_a_sample_says_first_what_it_is(file: Path) -> None:
    assert file.read_text().startswith("# ")


def test_no_two_samples_have_one_name() -> None:
    names = [yaml.safe_load(file.read_text())["metadata"]["name"] for file in FILES]
    assert sorted(names) == sorted(set(names))
