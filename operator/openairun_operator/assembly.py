"""Puts the operator together from its settings, and runs it until it is told to stop."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, cast
from urllib.parse import urlsplit

import kopf
from kopf._cogs.structs.references import Insights  # what kopf.spawn_tasks takes, and not exported

from openairun_operator import handlers, memory
from openairun_operator.api.names import PLURAL, PROVIDER_PLURAL
from openairun_operator.checking import Checker
from openairun_operator.config import Settings
from openairun_operator.kube import kopf_listing, kopf_settings
from openairun_operator.kube.cluster import Cluster, ClusterError
from openairun_operator.kube.credentials import ExchangedKey, OperatorKey, OwnKey
from openairun_operator.kube.events import Events
from openairun_operator.kube.lease import Lease
from openairun_operator.leadership import alive, leading
from openairun_operator.lifecycle.facts import Policy
from openairun_operator.metrics import Metrics
from openairun_operator.providers import Own, Providers
from openairun_operator.reconciler import Reconciler, always
from openairun_operator.wires import identity
from openairun_operator.wires.clients import Clients

logger = logging.getLogger(__name__)

_CRD_RETRY: Final = 5.0
_WATCH_RETRY: Final = 2.0
_FIRST_READ: Final = 10.0
"""Seconds to read keys before runs are looked at: without its key a run waits, and has to say so."""
_NO_PROVIDERS: Final = "Apply the rights of this version, deploy/manifests/rbac.yaml: no run is created"
_NO_NAMESPACES: Final = (
    "--own-provider-selector needs that right: add deploy/manifests/components/namespaces. Until then no new run is"
    " made with the operator's own key"
)
_DRAIN: Final = timedelta(seconds=5)
_WATCHED: Final = {PLURAL, PROVIDER_PLURAL, "namespaces"}
"""What kopf must find, each by its plural: without namespaces it begins no watch at all."""


class NotServedError(Exception):
    """A port that was asked for cannot be served. The message is one line."""


class NotWatchedError(Exception):
    """kopf does not watch what it should."""


def configure_logging(settings: Settings) -> None:
    """kopf's logging, in the wanted form; libraries say only what is wrong."""
    log_format = kopf.LogFormat.JSON if settings.log_format == "json" else kopf.LogFormat.FULL
    kopf.configure(debug=settings.verbose, verbose=settings.verbose, log_format=log_format)
    if settings.log_format == "plain":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    for name in ("kopf.objects", "kopf.activities", "openai", "httpx2", "httpcore2", "aiohttp.access", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


async def run(settings: Settings) -> None:
    """Run the operator until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    _stop_at_signals(stop)
    cluster = await Cluster.connect()
    clients = Clients(settings.request_timeout.total_seconds(), settings.allowed_addresses)
    logger.info("the cluster is %s", cluster.where)
    try:
        if settings.liveness:
            await _check_free(settings.liveness)
        async with alive(settings.liveness):
            there = await _crds_are_there(cluster, stop)
        if there:
            await _operate(settings, cluster, clients, stop)
    finally:
        await clients.close()
        await cluster.close()
    logger.info("stopped")


def _stop_at_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def _crds_are_there(cluster: Cluster, stop: asyncio.Event) -> bool:
    """Wait for the CRDs; False if told to stop before."""
    while not stop.is_set():
        try:
            missing = await cluster.missing_crds()
            if not missing:
                return True
            logger.warning("Not installed: %s. Apply the CRDs: kubectl apply -k deploy/crds", ", ".join(missing))
        except ClusterError as error:
            logger.warning("%s", error)
        try:
            await asyncio.wait_for(stop.wait(), _CRD_RETRY)
        except TimeoutError:
            continue
    return False


@dataclass(frozen=True)
class Listed:
    """What was listed at the start, and is watched from then on; and who is to know what is listed later."""

    reconciler: Reconciler
    providers: Providers
    whole: asyncio.Event = field(default_factory=asyncio.Event)
    versions: dict[str | None, str] = field(default_factory=dict)
    """Those of the lists, by namespace; None: of all."""

    async def since(self, plural: str, namespace: str | None) -> str | None:
        """From which version on to watch: once, since a watch that begins anew has missed something and must list."""
        if plural != PLURAL:
            return None
        await self.whole.wait()
        return self.versions.pop(namespace, None)

    def listed(self, plural: str, namespace: str | None, version: str, uids: Collection[str]) -> None:
        """At the resourceVersion `version` these were all that there were in `namespace`, or everywhere."""
        if plural == PLURAL:
            self.reconciler.listed(namespace, uids)
        elif plural == PROVIDER_PLURAL:
            self.providers.listed(namespace, version, uids)


async def _operate(settings: Settings, cluster: Cluster, clients: Clients, stop: asyncio.Event) -> None:
    key = _own_key(settings, clients)
    events = Events(cluster, settings.holder)
    policy = Policy(
        holder=settings.holder, orphan_limit=settings.orphan_limit, request_timeout=settings.request_timeout
    )
    metrics = Metrics()
    if settings.own_provider:
        metrics.watch_key(lambda: key.current)
    lease = Lease(cluster, *settings.lease, settings.holder) if settings.lease else None
    providers = Providers(Own(settings, key), clients, cluster)
    may_act = lease.held if lease else always
    reconciler = Reconciler(policy, cluster, providers, events, metrics, may_act=may_act)
    providers.changed = reconciler.provider_changed
    events.busy = reconciler.scheduler.hurries

    listed = Listed(reconciler, providers)

    async def begin() -> None:
        # Once: what goes on is looked at and cancelled though the watch began anew and nothing can be listed.
        if not listed.whole.is_set():
            await _know_all(settings, cluster, providers, reconciler, listed.versions)
            listed.whole.set()
        await reconciler.scheduler.run()

    background = {
        "scheduler": begin,
        "sweep": reconciler.sweep,
        "let go": reconciler.let_go,
        "seek": reconciler.seek,
        "memory": memory.keep_giving_back,
        "key": lambda: key.watch(lambda: reconciler.provider_changed(None)),
        "providers": providers.watch,
        "checks": Checker(providers, cluster, clients, reconciler.counts, may_act).run,
        "events": events.run,  # the last to end
    }
    where = ", ".join(settings.namespaces) or "all namespaces"
    logger.info("watching openairuns in %s; runs go to %s", where, settings.base_url)
    async with _served(metrics, settings.metrics), leading(lease, stop, settings.liveness) as ours:
        if not ours:
            return
        try:
            with kopf_listing.watching(listed):
                await keep_watching(
                    lambda flag: _watch(settings, cluster, reconciler, providers, background, flag, stop), stop
                )
        finally:
            async with handlers.beside("events", events.run):  # what is done at the end is said too
                await reconciler.drain(_time_to_stop(settings))


def _own_key(settings: Settings, clients: Clients) -> OwnKey:
    if settings.workload_identity:
        ids, file = settings.workload_identity, settings.workload_token_file
        return ExchangedKey(lambda: identity.exchange(clients, *ids, file), "/".join(ids))
    passing = settings.azure_authentication == "BearerToken"
    key = OperatorKey(settings.api_key_file, settings.api_key, passing=passing)
    if key.current is None:
        logger.warning("%s", key.trouble.message)
    return key


async def _know_all(
    settings: Settings,
    cluster: Cluster,
    providers: Providers,
    reconciler: Reconciler,
    versions: dict[str | None, str],
) -> None:
    """List all there is before the first create: else one could overtake another, or be one too many.

    `versions` takes those of the lists, by namespace, for whoever watches.
    """
    while True:
        try:
            await _know(cluster.every(PROVIDER_PLURAL, settings.namespaces), providers.saw, _NO_PROVIDERS)
            await providers.read_due(_FIRST_READ)
            await providers.own.key.looked()
            if settings.own_provider_selector:
                await _know(cluster.every_namespace(), providers.saw_namespace, _NO_NAMESPACES)
            uids = set[str]()
            async for body in cluster.every(PLURAL, settings.namespaces, versions):
                uids.add(body["metadata"]["uid"])
                _take_in(body, reconciler)
        except ClusterError as error:
            logger.warning("%s; trying again", error)
            await asyncio.sleep(_WATCH_RETRY)
            continue
        reconciler.listed(None, uids)  # what an earlier list showed, that broke off, may have gone
        reconciler.open()
        return


def _take_in(body: Any, reconciler: Reconciler) -> None:
    try:
        reconciler.saw(None, body)
    except Exception:  # one that nobody can read must not keep all others from being looked at
        meta = body["metadata"]
        logger.exception("%s/%s cannot be taken in: it waits until it is changed", meta.get("namespace"), meta["name"])


async def _know(bodies: AsyncIterator[Any], saw: Callable[[None, Any], None], without: str) -> None:
    """Take in a list. Without the right to it all else goes on; `without` says what does not, and what to do."""
    try:
        async for body in bodies:
            saw(None, body)
    except ClusterError as error:
        if error.status != 403:
            raise
        logger.error("%s. %s", error, without)


def _time_to_stop(settings: Settings) -> float:
    return (settings.request_timeout + _DRAIN).total_seconds()


async def _watch(
    settings: Settings,
    cluster: Cluster,
    reconciler: Reconciler,
    providers: Providers,
    background: Mapping[str, handlers.Background],
    flag: asyncio.Event,
    stop: asyncio.Event,
) -> None:
    """Run kopf, and what runs beside it, until `flag` is set. A signal sets `stop`, as it does without kopf."""
    registry = kopf.OperatorRegistry()
    handlers.register(registry, reconciler, background, _time_to_stop(settings), flag)
    handlers.watch_providers(registry, providers, namespaces=bool(settings.own_provider_selector))
    others, insights = asyncio.all_tasks(), Insights()
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=kopf.OperatorSettings(),
        memories=kopf_settings.Forgetful(),
        insights=insights,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        liveness_endpoint=settings.liveness,
        stop_flag=flag,
        # Else kopf asks who the user is, and in a container the user mostly has no name.
        identity=cast(Any, settings.holder),  # its type is not exported
    )
    # Not kopf.operator, which is the same but for this: kopf has taken the signals just now, and would forget one that
    # comes while it ends for another reason.
    _stop_at_signals(stop)
    looking = asyncio.create_task(_look_again(insights, cluster, stop), name="look again")
    await kopf.run_tasks([*tasks, looking], ignored=others)  # until the first of them ends


async def _look_again(insights: Insights, cluster: Cluster, stop: asyncio.Event) -> None:
    """End if kopf, which looks but once for what it is to watch, did not find it, and it is there now.

    Until then kopf runs, so that the probe is answered, and what goes at OpenAI is looked at and cancelled.
    """
    await insights.ready_resources.wait()
    found = {each.plural for each in (*insights.watched_resources, *insights.backbone.values())}
    if not (missing := _WATCHED - found):
        await asyncio.Event().wait()
    if await _crds_are_there(cluster, stop):
        raise NotWatchedError(f"kopf does not watch {', '.join(sorted(missing))}")


async def keep_watching(watch: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> None:
    """Watch until told to stop. kopf ends at an answer that it does not expect, such as 410 or 422: it begins anew.

    Its errors are not exported, so all are taken for such; LoginError alone is for a person.
    """
    while True:
        flag = asyncio.Event()  # kopf's own: it is set whenever kopf ends
        passing = asyncio.create_task(_pass_on(stop, flag))
        try:
            await watch(flag)
            return
        except kopf.LoginError:
            raise
        except Exception as error:  # noqa: BLE001 - as said above
            logger.error("The watch ended: %s: %s; starting it again", type(error).__name__, error)
        finally:
            passing.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _WATCH_RETRY)
        if stop.is_set():
            return


async def _pass_on(stop: asyncio.Event, flag: asyncio.Event) -> None:
    await stop.wait()
    flag.set()


@contextlib.asynccontextmanager
async def _served(metrics: Metrics, url: str | None) -> AsyncIterator[None]:
    if url is None:
        yield
        return
    parts = urlsplit(url)
    try:
        runner = await metrics.serve(parts.hostname or "localhost", parts.port or 80, parts.path or "/metrics")
    except OSError as error:
        raise NotServedError(f"cannot serve {url}: {error.strerror or error}") from error
    try:
        yield
    finally:
        await runner.cleanup()


async def _check_free(url: str) -> None:
    """Raises NotServedError for a taken port. kopf, which serves it later, would show a traceback."""
    parts = urlsplit(url)
    try:
        server = await asyncio.get_running_loop().create_server(
            asyncio.Protocol, parts.hostname or "localhost", parts.port or 80
        )
    except OSError as error:
        raise NotServedError(f"cannot serve {url}: {error.strerror or error}") from error
    server.close()
    await server.wait_closed()
