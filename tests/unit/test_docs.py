"""The pages in docs/ are what the code says."""

import re
from pathlib import Path

import pytest

from openairun_devkit.reference import reference
from openairun_operator.api.base import Model
from openairun_operator.api.provider import OpenAIProviderSpec
from openairun_operator.api.reasons import Reason
from openairun_operator.api.spec import DEFINING, OpenAIRunSpec
from openairun_operator.lifecycle.failure import NEEDS_PERSON

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
TROUBLESHOOTING = (ROOT / "docs/troubleshooting.md").read_text()


def sections(text: str, mark: str) -> dict[str, str]:
    """The text under each heading of one level."""
    parts = re.split(rf"^{mark} (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_reference_is_what_the_crd_says() -> None:
    assert (ROOT / "docs/reference.md").read_text() == reference(), "write it anew: make docs"


@pytest.mark.parametrize(("kind", "spec"), [("OpenAIRun", OpenAIRunSpec), ("OpenAIProvider", OpenAIProviderSpec)])
def test_the_reference_has_every_field_of_the_spec(kind: str, spec: type[Model]) -> None:
    rows = sections(reference(), "##")[f"{kind}: spec"]
    for name in spec.model_fields:
        (row,) = [line for line in rows.splitlines() if line.startswith(f"| `{name}` |")]
        assert ("Defines the run" in row) == (name in DEFINING and spec is OpenAIRunSpec)


def test_every_reason_has_its_heading_and_text_and_no_other_has() -> None:
    found = sections(TROUBLESHOOTING, "###")
    assert sorted(found) == sorted(reason.value for reason in Reason)
    assert all(len(text.split()) > 5 for text in found.values())


def test_the_reasons_that_need_a_person_are_under_that_heading() -> None:
    by_group = sections(TROUBLESHOOTING, "##")
    found = set(re.findall(r"^### (\w+)$", by_group["A person must act"], re.MULTILINE))
    assert found == {*map(str, NEEDS_PERSON), str(Reason.INVALID_SPEC), str(Reason.CREATE_OUTCOME_UNKNOWN)}


def test_the_fields_that_make_a_new_run_are_the_defining_ones() -> None:
    text = (ROOT / "docs/gitops.md").read_text()
    new, in_place, later = re.findall(r"^\| (`.*?) \| (?:\*\*a new run|applies|used)", text, re.MULTILINE)
    assert re.findall(r"`(\w+)`", new) == list(DEFINING)
    others = re.findall(r"`(\w+)`", in_place + later)
    assert sorted([*others, *DEFINING]) == sorted(OpenAIRunSpec.model_fields)


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=lambda page: page.name)
def test_every_sample_that_is_named_is_there(page: Path) -> None:
    for path in re.findall(r"deploy/samples/[\w./-]+\.yaml", page.read_text()):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_test_that_is_named_is_there(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert text.count(".py::") == len(named), "each as path::name"
    for path, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{name}"


def test_each_promise_of_security_names_a_test() -> None:
    page = (ROOT / "docs/security.md").read_text()
    rows = re.findall(r"^\| to .*$", page, re.MULTILINE)
    assert len(rows) > 10
    assert not [row for row in rows if "::test_" not in row]
