"""docs/terraform.md has all that Terraform's openai_run has, and names no field that the CRD has not."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_docs import sections

from openairun_operator.api.spec import OpenAIRunSpec

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/terraform.md").read_text()
(VERSION,) = yaml.safe_load((ROOT / "deploy/crds/openairun.dev_openairuns.yaml").read_text())["spec"]["versions"]
REFERENCES = sorted((ROOT.parent / "shared/terraform").glob("openai_run-*.md"))
"""The providers' own pages, which are no part of the repository: where they lie beside it, `TERRAFORM` is checked."""

ARGUMENTS = """
    assistant_id completion_window instructions max_tokens metadata model polling_interval stream_for_tool
    temperature thread_id timeout tools top_p wait_for_completion
"""
ATTRIBUTES = """
    cancelled_at completed_at created_at expires_at failed_at file_ids id last_error object required_action
    started_at status steps usage
    steps.created_at steps.details steps.id steps.object steps.status steps.type
"""
TERRAFORM = {"Arguments": set(ARGUMENTS.split()), "Attributes": set(ATTRIBUTES.split())}


def rows(section: str) -> dict[str, tuple[str, str]]:
    """The other two columns of a table's rows, by the name in the first."""
    found = re.findall(r"^\| `([\w.]+)` \| `([\w.\[\]]+)` \| (.*)\|$", sections(PAGE, "##")[section], re.MULTILINE)
    return {name: (field, text) for name, field, text in found}


def paths(node: dict[str, Any], path: str) -> Iterator[str]:
    """Every field below a schema's node, as the page writes them."""
    yield path
    for name, child in node.get("properties", {}).items():
        yield from paths(child, f"{path}.{name}")
    if isinstance(node.get("items"), dict):
        yield from paths(node["items"], f"{path}[]")


FIELDS = {
    path
    for part in ("spec", "status")
    for path in paths(VERSION["schema"]["openAPIV3Schema"]["properties"][part], part)
}


def documented(page: str) -> dict[str, set[str]]:
    """The arguments and attributes that a provider's page lists; those of steps as `steps.name`."""
    out: dict[str, set[str]] = {"Arguments": set(), "Attributes": set()}
    kind, prefix = "", ""
    for line in page.splitlines():
        if line.startswith("#"):
            kind = "Attributes" if re.search("Attributes|Read-Only", line) else kind
            kind = "Arguments" if re.search("Argument|Required|Optional", line) else kind
            kind = "" if re.search("Example|Import|Notes", line) else kind
            prefix = "steps." if "`steps`" in line else prefix
        if kind and (name := re.match(r"- `(\w+)`", line)):
            out[kind].add(prefix + name[1])
    return out


@pytest.mark.skipif(not REFERENCES, reason="the providers' pages are not beside the checkout")
def test_the_lists_are_what_the_two_providers_document() -> None:
    found = [documented(page.read_text()) for page in REFERENCES]
    assert len(found) == 2
    assert {kind: found[0][kind] | found[1][kind] for kind in TERRAFORM} == TERRAFORM


@pytest.mark.parametrize(("kind", "prefix"), [("Arguments", "spec."), ("Attributes", "status.")])
def test_each_has_a_row_with_its_field_and_what_is_different(kind: str, prefix: str) -> None:
    found = rows(kind)
    assert set(found) == TERRAFORM[kind]
    assert all(field.startswith(prefix) for field, _ in found.values())
    assert all(text.strip() for _, text in found.values())


def test_every_field_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`((?:spec|status)\.[\w.\[\]]+)", PAGE))
    assert named
    assert named <= FIELDS


def test_what_terraform_has_no_word_for_is_listed_as_only_here() -> None:
    has_a_word = {field for field, _ in rows("Arguments").values()} | {"spec.runID"}
    only_here = re.findall(r"^\| ((?:`spec\.\w+`(?:, )?)+) \|", sections(PAGE, "##")["Only here"], re.MULTILINE)
    listed = [field for cell in only_here for field in re.findall(r"`(spec\.\w+)`", cell)]
    assert sorted(listed) == sorted({f"spec.{name}" for name in OpenAIRunSpec.model_fields} - has_a_word)


@pytest.mark.parametrize("file", ["terraform-run.yaml", "terraform-run-responses.yaml"])
def test_the_counterparts_are_the_samples(file: str) -> None:
    (shown,) = re.findall(rf"^```yaml\n# deploy/samples/{file}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert (ROOT / "deploy/samples" / file).read_text().partition("\n")[2] == shown


def test_the_counterpart_has_every_argument_of_the_example() -> None:
    (example,) = re.findall(r"^```hcl\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    written = {rows("Arguments")[name][0] for name in re.findall(r"^  (\w+) +=", example, re.MULTILINE)}
    sample = yaml.safe_load((ROOT / "deploy/samples/terraform-run.yaml").read_text())
    assert {f"spec.{name}" for name in sample["spec"]} == written
