"""What the operator counts, for Prometheus. Names follow Prometheus' own conventions: a unit, `_total` for counters.

All series of a counter are there from the start: Prometheus sees no increase in one that is born at 1.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Final, get_args

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API, Usage
from openairun_operator.lifecycle.failure import Failure, Outcome

_UNSEEN: Final = "Unseen"
_CREATED: Final = "created"
_TAKEN: Final = "taken"
_OUTCOMES: Final = tuple(outcome.value for outcome in Outcome)

CALL_REASONS: Final = (
    Reason.ADDRESS_REFUSED,
    Reason.API_NOT_SERVED,
    Reason.BUSY,
    Reason.ID_NOT_ALLOWED,
    Reason.INVALID_CREDENTIALS,
    Reason.INVALID_REQUEST,
    Reason.MODEL_NOT_ACCESSIBLE,
    Reason.NOT_FOUND,
    Reason.NO_CREDENTIALS,
    Reason.PERMISSION_DENIED,
    Reason.PROVIDER_NOT_FOUND,
    Reason.QUOTA_EXCEEDED,
    Reason.RATE_LIMITED,
    Reason.REFUSED,
    Reason.RUN_NOT_FOUND,
    Reason.SERVER_ERROR,
    Reason.TIMED_OUT,
    Reason.UNREACHABLE,
    Reason.UNREADABLE_ANSWER,
)
"""Why a call to OpenAI can fail."""


class Metrics:
    """All metrics of one operator, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._creates = self._counter(
            "creates", "Creates that were sent, by what came of them", outcome=(_CREATED, *_OUTCOMES)
        )
        self._submits = self._counter(
            "submits", "Submissions of tool outputs that were sent, by what came of them", outcome=(_TAKEN, *_OUTCOMES)
        )
        self._polls = self._counter("polls", "Looks at runs that were answered")
        self._errors = self._counter("errors", "Calls to OpenAI that failed", reason=CALL_REASONS)
        self._cancels = self._counter("cancels", "Cancels that OpenAI took")
        self._orphans = self._counter("orphans", "Runs left at OpenAI, whose cancellation was not confirmed")
        self._tokens = self._counter("tokens", "Tokens that finished runs used", type=("prompt", "completion"))

    def _counter(self, name: str, help_: str, **labels: Sequence[str]) -> Counter:
        """A counter by API and `labels`, each with all its values."""
        counter = Counter(f"openairun_{name}", help_, ("api", *labels), registry=self.registry)
        for values in itertools.product(get_args(API), *labels.values()):
            counter.labels(*values)
        return counter

    def created(self, api: API) -> None:
        """A create made a run."""
        self._creates.labels(api, _CREATED).inc()

    def not_created(self, api: API, failure: Failure) -> None:
        """A create failed; the outcome label is `not created` or `unknown`."""
        self._creates.labels(api, failure.outcome.value).inc()

    def submitted(self, api: API) -> None:
        """Tool outputs were taken."""
        self._submits.labels(api, _TAKEN).inc()

    def not_submitted(self, api: API, failure: Failure) -> None:
        """Tool outputs were not taken; the outcome label is `not created` or `unknown`, as for creates."""
        self._submits.labels(api, failure.outcome.value).inc()

    def polled(self, api: API) -> None:
        """A look at a run was answered."""
        self._polls.labels(api).inc()

    def failed(self, api: API, failure: Failure) -> None:
        """A call failed."""
        self._errors.labels(api, failure.reason.value).inc()

    def cancelled(self, api: API) -> None:
        """OpenAI took a cancel."""
        self._cancels.labels(api).inc()

    def orphaned(self, api: API) -> None:
        """A run may go on that nobody follows any more."""
        self._orphans.labels(api).inc()

    def used(self, api: API, usage: Usage) -> None:
        """A finished run used tokens."""
        self._tokens.labels(api, "prompt").inc(usage.promptTokens or 0)
        self._tokens.labels(api, "completion").inc(usage.completionTokens or 0)

    def watch(
        self,
        runs: Callable[[], Iterable[tuple[str | None, str | None]]],
        depth: Callable[[], int],
        lag: Callable[[], float],
    ) -> None:
        """Show gauges that are read when somebody asks: each run's phase and API, the queue's depth and lag."""
        self.registry.register(_Gauges(runs, depth, lag))

    def watch_key(self, key: Callable[[], str | None]) -> None:
        """Show whether there is a key, when somebody asks."""
        gauge = Gauge("openairun_key_present", "1 while the operator has an API key, else 0", registry=self.registry)
        gauge.set_function(lambda: 0.0 if key() is None else 1.0)

    async def serve(self, host: str, port: int, path: str) -> web.AppRunner:
        """Serve them until the runner is cleaned up. Raises OSError for a port that cannot be had."""
        application = web.Application()
        application.router.add_get(path, self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError:
            await runner.cleanup()
            raise
        return runner

    async def _answer(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Gauges(Collector):
    def __init__(
        self,
        runs: Callable[[], Iterable[tuple[str | None, str | None]]],
        depth: Callable[[], int],
        lag: Callable[[], float],
    ) -> None:
        self._runs, self._depth, self._lag = runs, depth, lag

    def collect(self) -> Iterable[Metric]:
        counts: dict[tuple[str, str], int] = {}
        for phase, api in self._runs():
            key = (phase or _UNSEEN, api or "")
            counts[key] = counts.get(key, 0) + 1
        runs = GaugeMetricFamily("openairun_runs", "Resources, by phase and API", labels=["phase", "api"])
        for labels, count in counts.items():
            runs.add_metric(labels, count)
        yield runs
        yield GaugeMetricFamily("openairun_queue_depth", "Resources that wait for their time", value=self._depth())
        yield GaugeMetricFamily(
            "openairun_poll_lag_seconds", "How late the most overdue resource is", value=self._lag()
        )
