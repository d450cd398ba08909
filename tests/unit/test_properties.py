"""Whatever the API server takes and whatever OpenAI answers: the operator never raises, and never hangs.

Deterministic, and short. PROPERTIES=<n> makes it n times as long, with other examples each time.
"""

import asyncio
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import httpx2
import pytest
from builders import (
    ASSISTANTS,
    BAD_KEY,
    BAD_REQUEST,
    BUSY,
    NO_ANSWER,
    NO_CREDENTIALS,
    NOT_FOUND,
    RATE_LIMITED,
    RESPONSES,
    START,
    ServedRun,
    World,
    body,
)
from garbage import HEADERS, bodies
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as some
from openai_description import DESCRIPTION, schema_errors
from specs import STATUS, Json, refusals, specs, stored
from test_api_crd import violations

from openairun_devkit.cluster import schema
from openairun_operator.api import durations
from openairun_operator.api.names import METADATA_PREFIX, TOKEN_KEY
from openairun_operator.api.record import API, Record
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.lifecycle import digest
from openairun_operator.lifecycle.failure import Failure
from openairun_operator.lifecycle.observation import (
    Call,
    CreateRequest,
    RunObservation,
    RunRef,
    SubmitRequest,
    ToolResult,
)
from openairun_operator.lifecycle.run import parse
from openairun_operator.wires import assistants, responses
from openairun_operator.wires.assistants import Assistants
from openairun_operator.wires.calls import Caller
from openairun_operator.wires.clients import Answered, Client, Credentials
from openairun_operator.wires.responses import Responses

TIMES = int(os.environ.get("PROPERTIES", "0"))


def examples(count: int) -> settings:
    """So many examples, the same at each run; many more, and others, where PROPERTIES asks for them."""
    return settings(
        max_examples=count * max(TIMES, 1),
        derandomize=not TIMES,
        database=None,
        deadline=None,
        print_blob=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )


# --- specs


@examples(60)
@given(specs())
def test_what_is_made_is_what_an_api_server_takes_and_the_models_read_it(spec: Json) -> None:
    assert refusals(spec) == []
    error = parse(body(spec)).spec_error
    # CEL cannot see into free JSON, so there the models may refuse more than the CRD.
    assert error is None or "options." in error
    assert digest.of(spec) == digest.of(json.loads(json.dumps(spec)))


# --- lives


@dataclass(frozen=True)
class Plan:
    """What happens in a life beside what the specs ask for."""

    creates: list[Any]
    faults: list[Failure]
    asks: list[tuple[Call, ...]]
    answered: bool
    takes: int | None
    ends_as: str
    cancel_takes: int | None
    crashes: list[tuple[int, str]]
    """One for each stage, if there are so many: at which of its steps the process dies, before or after its action."""
    loses_status: bool
    blocked: bool
    """No key in the first stage."""
    texts: bool
    """Whether what references lead to exists."""
    exists: bool
    """Whether the run that spec.runID names exists."""
    stages: tuple[int | None, int | None]
    """Steps until the spec is replaced, and until the resource is deleted; None: until it has come to rest."""
    default_model: bool
    answer: str


_CALLS = some.builds(
    Call,
    some.sampled_from(["call_1", "call_2", "call_3"]),
    some.text(max_size=5),
    some.text(max_size=10),
    some.sampled_from(["function", "custom", "mcp_approval"]),
)
_FAULTS = [RATE_LIMITED, BAD_KEY, NO_ANSWER]
_STEPS = some.none() | some.integers(0, 12)
_PLANS = some.builds(
    Plan,
    creates=some.lists(
        some.sampled_from(["lost answer", RATE_LIMITED, BAD_REQUEST, BAD_KEY, BUSY, NO_ANSWER]), max_size=2
    ),
    faults=some.lists(some.sampled_from([*_FAULTS, NOT_FOUND]), max_size=4),
    asks=some.lists(some.lists(_CALLS, max_size=3, unique_by=lambda call: call.id).map(tuple), max_size=2),
    answered=some.booleans(),
    takes=some.sampled_from([20, 0, None]),
    ends_as=some.sampled_from(["completed", "failed", "incomplete", "expired", "cancelled"]),
    cancel_takes=some.sampled_from([3, 0, None]),
    crashes=some.lists(some.tuples(some.integers(1, 12), some.sampled_from(["before", "after"])), max_size=3),
    loses_status=some.booleans(),
    blocked=some.sampled_from([False, False, False, True]),
    texts=some.sampled_from([True, True, False]),
    exists=some.sampled_from([True, True, False]),
    stages=some.tuples(_STEPS, _STEPS),
    default_model=some.sampled_from([True, True, True, False]),
    answer=some.text(some.characters(), max_size=20) | some.just("🚀" * 40_000),
)
STEPS = 400
"""More than any stage of a life takes."""
PATIENCE = 12
"""Looks at what will not change by itself, before a stage counts as come to rest."""


QUIET = Plan([], [], [], False, 20, "completed", 3, [], False, False, False, False, (None, None), True, "")


class Life(World):
    """A world that looks at every status which it writes."""

    def __init__(self, spec: Json, plan: Plan) -> None:
        super().__init__(spec)
        self.plan = plan
        self.crashes = list(plan.crashes)
        self.provider_is(default_model="gpt-default" if plan.default_model else None)
        server = self.server
        server.takes = None if plan.takes is None else timedelta(seconds=plan.takes)
        server.cancel_takes = None if plan.cancel_takes is None else timedelta(seconds=plan.cancel_takes)
        server.ends_as, server.answer = plan.ends_as, plan.answer
        server.creates.extend(plan.creates)
        server.faults.extend(plan.faults)
        server.asks.extend(plan.asks)

    def meet(self, spec: Json) -> None:
        """What the spec refers to exists, if the plan says so."""
        if self.plan.texts:
            self.texts |= set(references(spec))
        run_id, thread = spec.get("runID"), spec.get("threadID")
        if self.plan.exists and run_id:
            self.server.runs.setdefault(run_id, ServedRun(run_id, "another's", thread, self.now))

    def replace(self, spec: Json) -> None:
        """Another spec, as by kubectl replace."""
        meta = self.object["metadata"]
        meta["generation"] += spec != self.object["spec"]
        self.object["spec"] = spec
        self.known.retry_at = None
        self.meet(spec)

    def step(self) -> Any:
        writes = self.writes
        result = super().step()
        if self.body is not None and self.writes > writes:
            assert_fits(self.body["status"])
        return result

    def stage(self, steps: int | None) -> None:
        """So many steps, or until it has come to rest."""
        self.crash = None
        if self.crashes:
            after, when = self.crashes.pop(0)
            self.crash = (self.steps + after, when)
        looks = 0
        for done in range(STEPS):
            if self.body is None or done == steps:
                return
            match self.step():
                case True:
                    continue
                case False:
                    return
                case until:
                    looks += 1
                    if looks > PATIENCE and (self.says("Finished", "Stalled", "Suspended") or self.held_up()):
                        return
                    self.now = self.deadline(until) if looks > PATIENCE else until
        raise AssertionError(f"no rest after {STEPS} steps: {self.status}")

    def deadline(self, until: Any) -> Any:
        """The moment at which a run that goes has had its time, if that is still to come; else `until`."""
        record, effective = self.record, self.status.effective
        if record is None or record.recordedAt is None or effective is None or effective.timeout is None:
            return until
        return max(until, record.recordedAt + durations.parse(effective.timeout))

    def says(self, *types: str) -> bool:
        conditions = [self.status.condition(type_) for type_ in types]
        return any(condition is not None and condition.status == "True" for condition in conditions)

    def held_up(self) -> bool:
        """Whether it is tried again and again, and said why."""
        synced = self.status.condition("Synced")
        return synced is not None and synced.status == "False" and synced.message != ""

    def answer_calls(self) -> None:
        """Answer what the run asks for."""
        if self.body is None or self.status.requiredAction is None:
            return
        answers = [
            {"toolCallID": call.id, **({"approve": True} if call.type == "mcp_approval" else {"output": "3"})}
            for call in self.status.requiredAction.toolCalls
        ]
        self.edit(toolOutputs=answers)

    def end(self) -> None:
        """Delete it: it goes within the orphan limit, and a second one where the process died meanwhile."""
        if self.body is None:
            return
        self.crash = None
        self.delete()
        begun = self.now
        for _ in range(STEPS):
            if self.body is None:
                break
            match self.step():
                case True:
                    continue
                case False:
                    raise AssertionError("deleted, and nothing more is done")
                case until:
                    self.now = until
        assert self.body is None, f"not gone after {STEPS} steps"
        assert self.now - begun <= self.policy.orphan_limit


def references(spec: Json) -> Iterator[tuple[str, str]]:
    """The texts that the spec refers to."""
    sources = [spec.get("inputFrom"), *(output.get("outputFrom") for output in spec.get("toolOutputs", ()))]
    for ref in (ref for source in sources if source for ref in source.values()):
        yield ref["name"], ref["key"]


def assert_fits(status: Json) -> None:
    """The API server takes it whole, and etcd has room for it."""
    assert violations(STATUS, status) == []
    assert schema.validate(status, STATUS, "status") == []
    assert len(json.dumps(status, ensure_ascii=False).encode()) < 1_000_000


def assert_created_once(life: Life, *specs: Json) -> None:
    """One run for a definition; beside one of which nobody knows, another where the user wants that."""
    made = Counter(sent.digest for sent in life.server.sent if sent.made and not sent.answers)
    again = any(spec["onUnknownCreate"] == "CreateAgain" for spec in specs)
    assert all(count <= (2 if again else 1) for count in made.values()), made


@examples(80)
@given(specs(), specs(), _PLANS)
def test_every_life_comes_to_rest_and_to_its_end(first: Json, second: Json, plan: Plan) -> None:
    life = Life(first, plan)
    life.meet(first)
    life.blocked = NO_CREDENTIALS if plan.blocked else None
    life.stage(plan.stages[0])
    life.blocked = None
    if life.body is not None and plan.answered:
        life.answer_calls()
        life.stage(None)
    if life.body is not None:
        if plan.loses_status:
            life.lose_status()
        life.replace(second)
        life.stage(plan.stages[1])
    life.end()
    assert_created_once(life, first, second)


# --- what is sent


def request(spec: Json, text: str = "read") -> CreateRequest:
    """The create that the spec leads to, as it is sent."""
    read = OpenAIRunSpec.model_validate(spec)
    own = {f"{METADATA_PREFIX}{name}": "1" for name in ("namespace", "name", "uid")} | {TOKEN_KEY: "token-1"}
    tokens = {tool.authorizationFrom: text for tool in read.tools or () if tool.authorizationFrom}
    return CreateRequest(read, "gpt-default", (read.metadata or {}) | own, text if read.inputFrom else None, tokens)


FREE = ("tools", "tool_choice", "text/format", "response_format", "reasoning", "max_output_tokens", "max_completion")
"""What is the user's own affair, as is said in the CRD: hosted tools, JSON schemas, and what one server or model takes
and another does not.
"""


def wrong(name: str, sent: Json) -> list[str]:
    """What OpenAI's description has against the form of the body."""
    return [error for error in schema_errors(name, sent) if not error.startswith(FREE)] if DESCRIPTION.exists() else []


@examples(60)
@given(specs(), some.sampled_from(["function", "custom"]), some.text(max_size=20))
def test_what_is_sent_is_json_and_of_the_form_that_openai_describes(spec: Json, type_: Any, output: str) -> None:
    assume(parse(body(spec)).spec is not None)
    create = request(spec)
    submit = SubmitRequest(RunRef("Responses", "resp_1"), (ToolResult("call_1", type_, output),), create)
    if "threadID" in spec:
        name, several = "CreateRunRequest", [assistants.request_body(create)]
    else:
        name, several = "CreateResponse", [responses.request_body(create), responses.submit_body(submit)]
    for sent in several:
        assert json.loads(json.dumps(sent, allow_nan=False, ensure_ascii=False).encode()) == sent
        assert "runID" in spec or wrong(name, sent) == []  # under runID nothing is created


# --- what is answered


@dataclass(frozen=True)
class Told:
    """An answer of a server."""

    status: int
    body: str
    headers: dict[str, str]


_TOLD = some.builds(
    Told, some.sampled_from([200] * 6 + [201, 204, 301, 400, 401, 404, 409, 429, 500, 503]), bodies(), HEADERS
)


class _Pool(httpx2.AsyncClient):
    """Answers what the SDK sends, and looks."""

    direct = True

    def __init__(self, answer: Callable[..., httpx2.Response]) -> None:
        super().__init__(transport=httpx2.MockTransport(answer))
        self._answer = answer

    async def read(self, url: Any, headers: Any, timeout: Any) -> Answered:
        told = self._answer(None)
        return Answered(told.status_code, "", told.headers, told.headers.raw, told.content)


class Babbling:
    """A server that answers one thing after another, whatever it is asked; behind a wire and the SDK, as it is read."""

    def __init__(self, api: API, answers: list[Told], runner: asyncio.Runner) -> None:
        self._answers = itertools.cycle(answers)
        self._runner = runner
        client = Client(Credentials("http://openai/v1", "sk-0123456789"), cast(Any, _Pool(self._answer)), 5)
        self._wire = (Assistants if api == "Assistants" else Responses)(Caller(client, api, 5))
        self._thread = "thread_1" if api == "Assistants" else None
        self._definition = CreateRequest(OpenAIRunSpec(input="x", model="m", threadID=self._thread))
        self.created = 0

    def _answer(self, request: Any) -> httpx2.Response:
        told = next(self._answers)
        return httpx2.Response(told.status, headers=told.headers, content=told.body.encode())

    def _ref(self, id_: str) -> RunRef:
        return RunRef(self._wire.api, id_, self._thread)

    def create(self, rec: Record) -> RunObservation:
        self.created += 1
        return self._runner.run(self._wire.create(self._definition))

    def submit(self, rec: Record, results: tuple[ToolResult, ...]) -> RunObservation:
        return self._runner.run(
            self._wire.submit(SubmitRequest(self._ref(rec.followed or ""), results, self._definition))
        )

    def observe(self, id_: str) -> RunObservation:
        return self._runner.run(self._wire.observe(self._ref(id_)))

    def cancel(self, id_: str) -> RunObservation:
        return self._runner.run(self._wire.cancel(self._ref(id_)))

    def find(self, token: str) -> RunObservation | None:
        return self._runner.run(self._wire.find(self._thread, token, START))


THEN: dict[str, Json] = {
    "nothing": {},
    "cancel": {"cancel": True},
    "replace": {"model": "m2"},
    "answer": {"toolOutputs": [{"toolCallID": id_, "output": id_} for id_ in ("call_1", "call_2", "resp_1", "run_1")]},
    "adopt": {"runID": "resp_1"},
}
"""What becomes of the spec meanwhile."""


@pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")
@examples(100)
@given(
    some.sampled_from(["Responses", "Assistants"]),
    some.lists(_TOLD, min_size=1, max_size=6),
    some.sampled_from([*THEN]),
)
def test_whatever_openai_answers_the_run_comes_to_its_end(api: API, answers: list[Told], then: str) -> None:
    spec = stored(RESPONSES if api == "Responses" else ASSISTANTS)
    life = Life(spec | (THEN[then] if then == "adopt" else {}), QUIET)
    with asyncio.Runner() as runner:
        life.server = cast(Any, Babbling(api, answers, runner))
        life.stage(15)
        if life.body is not None:
            life.edit(**THEN[then])
            life.stage(None)
        life.end()
