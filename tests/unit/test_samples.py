"""Every sample is one that an API server takes and the operator reads."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from openairun_devkit.cluster.api import Api, Options
from openairun_devkit.cluster.resources import CRDS
from openairun_operator.api.crd import PLURALS, custom_resource_definition
from openairun_operator.api.names import KIND, PROVIDER_KIND
from openairun_operator.api.provider import OpenAIProviderSpec
from openairun_operator.lifecycle.run import parse

SAMPLES = Path(__file__).parents[2] / "deploy/samples"
FILES = sorted(SAMPLES.rglob("*.yaml"))


@pytest.fixture(scope="module")
def api() -> Api:
    api = Api()
    for plural in PLURALS:
        api.create(CRDS, "", custom_resource_definition(plural))
    return api


def documents(file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(file.read_text()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SAMPLES)))
def test_a_sample_is_taken_as_it_is_and_read(file: Path, api: Api) -> None:
    for sample in documents(file):
        if sample["kind"] == "Secret":
            continue
        kind = api.resources.find("openairun.dev", "v1alpha1", f"{sample['kind'].lower()}s")
        assert kind is not None
        made = api.create(kind, "default", sample, Options(field_validation="Strict"))
        assert sample["spec"].items() <= made["spec"].items(), "nothing is pruned"
        if sample["kind"] == KIND:
            run = parse(made)
            assert run.spec is not None, run.spec_error
        else:
            assert sample["kind"] == PROVIDER_KIND
            OpenAIProviderSpec.model_validate(made["spec"])


def test_what_a_sample_names_is_in_the_same_file() -> None:
    for file in FILES:
        there = {(each["kind"], each["metadata"]["name"]) for each in documents(file)}
        for each in documents(file):
            spec = each.get("spec", {})
            if ref := spec.get("providerRef"):
                assert (PROVIDER_KIND, ref["name"]) in there
            if ref := spec.get("apiKeySecretRef"):
                assert ("Secret", ref["name"]) in there


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SAMPLES)))
def test_a_sample_says_first_what_it_is(file: Path) -> None:
    assert file.read_text().startswith("# ")


def test_no_two_samples_have_one_name() -> None:
    names = [each["metadata"]["name"] for file in FILES for each in documents(file) if each["kind"] == KIND]
    assert sorted(names) == sorted(set(names))
