"""Providers as they are now, each OpenAIProvider with its key, and the operator's own: who is asked for, and a wire.

A Secret is read by its name, again and again, since the operator may not watch Secrets; a key that was refused is read
again at once.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from pydantic import ValidationError

from openairun_operator.api import durations
from openairun_operator.api.base import unreadable
from openairun_operator.api.names import DEFAULT_PROVIDER
from openairun_operator.api.provider import Defaults, OpenAIProviderSpec
from openairun_operator.api.reasons import Reason
from openairun_operator.api.record import API
from openairun_operator.buckets import Bucket, Buckets
from openairun_operator.config import DEFAULT_BASE_URL, Settings
from openairun_operator.kube import references
from openairun_operator.kube.cluster import Cluster, ClusterError, GoneError
from openairun_operator.kube.credentials import OwnKey, mark
from openairun_operator.lifecycle import provider as naming
from openairun_operator.lifecycle.failure import CallFailedError, Failure
from openairun_operator.lifecycle.provider import OWN, Provider
from openairun_operator.lifecycle.run import Run
from openairun_operator.shares import Shares
from openairun_operator.store import number, version_number
from openairun_operator.wires.build import wire
from openairun_operator.wires.clients import Clients, Credentials
from openairun_operator.wires.protocol import Wire

logger = logging.getLogger(__name__)

Body = Mapping[str, Any]
Place = tuple[str, str]
"""Namespace and name of an OpenAIProvider."""

_READ: Final = 20.0
"""Seconds between two looks at a provider's key: a changed one is in use within 30."""
_AGAIN: Final = 2.0
"""Seconds between two looks at a key that is refused."""
_TICK: Final = 1.0
_PAUSE: Final = 0.1
_AT_ONCE: Final = 32
_OF_A_NAMESPACE: Final = 8
_LONGEST_KEY: Final = 8192
_LONGEST_BUNDLE: Final = 262_144
_REMEMBERED: Final = 1000
"""Providers that have gone whose last key is kept, to cancel what they run."""
_SETTLES: Final = timedelta(seconds=5)
_ANY: Final = 1_000_000_000
"""Requests a minute where there is no limit: a server may ask for patience all the same."""
_DOUBTFUL: Final = frozenset(
    {
        Reason.INVALID_CREDENTIALS,
        Reason.API_NOT_SERVED,
        Reason.ADDRESS_REFUSED,
        Reason.UNREACHABLE,
        Reason.TIMED_OUT,
        Reason.SERVER_ERROR,
    }
)
"""What may hold of a provider, and not of one run alone."""
_RETURNS: Final = 10.0
"""Seconds in which a provider that was deleted may be there again: to replace one is to delete and to create it."""


@dataclass(slots=True)
class Known:
    """One OpenAIProvider: the object, and what its references lead to."""

    body: Body
    spec: OpenAIProviderSpec | None
    declared: Provider | None
    """What the spec says of runs; made once, since it is asked for at each decision."""
    trouble: Failure | None = None
    """Why it cannot be used."""
    credentials: Credentials | None = None
    """The last that could be."""
    mark: str | None = None
    read: float | None = None
    """When its references were last read, by the event loop's clock."""
    stale: bool = False
    """Whether its key is to be read again at once."""
    doubted: float = -math.inf
    """When a call of a run last failed in a way that may be the provider's."""
    reading: asyncio.Task[None] | None = None
    """The last time that its references were read: it may go on."""
    left: float = 0.0
    """When it was seen to be deleted, likewise."""

    @property
    def place(self) -> Place:
        meta = self.body["metadata"]
        return meta["namespace"], meta["name"]

    def due(self) -> float:
        """When to read its references next."""
        if self.read is None:
            return 0.0
        return self.read + (_AGAIN if self.stale else _READ)


@dataclass(slots=True)
class Own:
    """The operator's own provider: a key, an address, and the namespaces that may use it."""

    settings: Settings
    key: OwnKey
    _made: Credentials | None = field(default=None, init=False)
    """The last that were asked for."""

    def allows(self, namespace: str, labels: Mapping[str, str] | None) -> bool:
        """Whether runs of `namespace` may be made with it. `labels` are None while nobody knows them."""
        settings = self.settings
        if not settings.own_provider:
            return False
        wanted = settings.own_provider_selector
        return not wanted or (labels is not None and all(labels.get(name) == value for name, value in wanted))

    def provider(
        self, *, blocked: Failure | None = None, patience: Failure | None = None, confirmed_only: bool = False
    ) -> Provider:
        """It, as it is now, with what is not the same for all namespaces."""
        settings = self.settings
        return Provider(
            name=OWN,
            address=settings.base_url,
            credential=self.key.mark,
            blocked=blocked or (None if self.key.current else self.key.trouble),
            patience=patience,
            own_ids_only=settings.forbid_foreign_ids,
            confirmed_only=confirmed_only,
            default_model=settings.default_model,
            create_settles=settings.request_timeout + _SETTLES,
            most_runs=settings.max_concurrent_runs,
            requests_per_minute=settings.requests_per_minute or None,
        )

    def credentials(self, *, ending: bool) -> Credentials:
        """Its credentials; raises CallFailedError without a key."""
        key = self.key.current or (self.key.last if ending else None)
        if key is None:
            raise CallFailedError(self.key.trouble)
        if self._made is None or self._made.key != key:
            settings = self.settings
            self._made = Credentials(
                settings.base_url,
                key,
                settings.organization,
                settings.project,
                api_version=settings.azure_api_version,
                key_in_header=settings.azure_authentication == "APIKey",
            )
        return self._made


@dataclass(slots=True)
class Providers:
    """All providers. `changed` is told of each namespace (None: all) whose runs have another provider now."""

    own: Own
    clients: Clients
    cluster: Cluster
    changed: Callable[[str | None], None] = field(default=lambda _: None)
    _buckets: Buckets = field(default_factory=lambda: Buckets(time.monotonic))
    _known: dict[Place, Known] = field(default_factory=dict)
    _past: OrderedDict[Place, Known] = field(default_factory=OrderedDict)
    _own: Credentials | None = None
    """The last that were used of the operator's own."""
    _labels: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _shares: Shares = field(default_factory=lambda: Shares(_AT_ONCE, _OF_A_NAMESPACE))

    # --- what comes in

    def saw(self, type_: str | None, body: Body) -> None:
        """Take in an event of the watch of OpenAIProviders; `type_` is None for one that was listed."""
        place = (body["metadata"]["namespace"], body["metadata"]["name"])
        before = self._known.get(place)
        if type_ == "DELETED":
            if before and before.body["metadata"]["uid"] == body["metadata"]["uid"]:
                before.left = asyncio.get_running_loop().time()
                self._past[place] = self._known.pop(place)
                while len(self._past) > _REMEMBERED:
                    self._past.popitem(last=False)
                self.changed(place[0])
            return
        if before and version_number(body) <= version_number(before.body) and _same(before.body, body):
            return
        known = _of(body, self.own.settings)
        if before and _same(before.body, body):
            if before.spec == known.spec:  # its own status
                before.body = body
                return
            known.credentials, known.mark = before.credentials, before.mark
        self._known[place] = known
        self._news.set()

    def listed(self, namespace: str | None, version: str, uids: Collection[str]) -> None:
        """At the resourceVersion `version` these were all that there were in `namespace`, or everywhere."""
        at = number(version)
        for known in self:
            meta = known.body["metadata"]
            newer = version_number(known.body) > at  # it was read since
            if namespace in (None, meta["namespace"]) and meta["uid"] not in uids and not newer:
                self.saw("DELETED", known.body)

    def saw_namespace(self, type_: str | None, body: Body) -> None:
        """Take in an event of the watch of namespaces."""
        name, labels = body["metadata"]["name"], body["metadata"].get("labels") or {}
        if type_ == "DELETED":
            self._labels.pop(name, None)
        elif self._labels.get(name) != labels:
            self._labels[name] = labels
            self.changed(name)

    def __iter__(self) -> Iterator[Known]:
        """Every OpenAIProvider that there is."""
        return iter(list(self._known.values()))

    async def watch(self) -> None:
        """Read what providers refer to, again and again. Until cancelled."""
        try:
            while True:
                self._news.clear()
                self._begin()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TICK):  # wait_for of Python 3.11 can swallow a cancellation
                        await self._news.wait()
                await asyncio.sleep(_PAUSE)  # what comes together is begun together
        finally:
            for known in self:
                if known.reading:
                    known.reading.cancel()

    async def read_due(self, most: float | None = None) -> None:
        """Read what is due. What takes longer than `most` seconds goes on."""
        if reading := self._begin():
            await asyncio.wait(reading, timeout=most)

    def _begin(self) -> list[asyncio.Task[None]]:
        """Begin to read what is due; the answer is all that is being read."""
        now = asyncio.get_running_loop().time()
        for known in self._known.values():
            if known.due() <= now and (known.reading is None or known.reading.done()):
                known.reading = asyncio.create_task(self._read_in_turn(known), name=f"read {'/'.join(known.place)}")
        return [known.reading for known in self._known.values() if known.reading and not known.reading.done()]

    async def _read_in_turn(self, known: Known) -> None:
        try:
            async with self._shares.room(known.place[0]):
                await self._read(known)
        except Exception:
            logger.exception("Reading what OpenAIProvider %s/%s refers to failed", *known.place)
            known.read = asyncio.get_running_loop().time()

    async def _read(self, known: Known) -> None:
        """Read its references, and have its runs go on if that changes anything."""
        first, before, again = known.read is None, (known.trouble, known.credentials), False
        try:
            if known.spec is not None:
                known.credentials = await self._credentials(known, known.spec)
                known.mark, known.trouble = mark(known.credentials.key), None
        except references.ReferenceFailedError as error:
            forbidden = error.failure.reason is Reason.REFERENCE_FORBIDDEN
            reason = error.failure.reason if forbidden else Reason.NO_CREDENTIALS
            known.trouble = _trouble(known, reason, error.failure.message)
        except ValueError as error:  # a key that no header can carry, or a bundle that is none: it says which
            known.trouble = _trouble(known, Reason.INVALID_CREDENTIALS, str(error))
        except ClusterError as error:
            logger.warning("OpenAIProvider %s/%s: %s", *known.place, error)
            if first or (known.trouble and known.trouble.reason is Reason.UNREACHABLE):
                known.trouble, again = _trouble(known, Reason.UNREACHABLE, str(error)), True
        known.read, known.stale = asyncio.get_running_loop().time(), again
        if before[1] and before[1] != known.credentials:
            self.clients.forget(before[1])
        if first or before != (known.trouble, known.credentials):
            if not first:
                logger.info("OpenAIProvider %s/%s has another key or address, or another reason for none", *known.place)
            self.changed(known.place[0])

    async def _credentials(self, known: Known, spec: OpenAIProviderSpec) -> Credentials:
        """Raises ReferenceFailedError, ValueError and ClusterError."""
        namespace, _ = known.place
        key = (await references.read_secret(self.cluster, namespace, spec.apiKeySecretRef)).strip()
        bundle = await references.read(self.cluster, namespace, spec.caBundleFrom) if spec.caBundleFrom else None
        if len(key) > _LONGEST_KEY:
            raise ValueError(f"the key is longer than {_LONGEST_KEY} characters")
        if bundle and len(bundle) > _LONGEST_BUNDLE:
            raise ValueError(f"the CA bundle is longer than {_LONGEST_BUNDLE} characters")
        credentials = Credentials(
            _address(spec),
            key,
            spec.organization,
            spec.project,
            api_version=spec.azure.apiVersion if spec.azure else None,
            key_in_header=spec.azure is not None and spec.azure.authentication == "APIKey",
            ca_bundle=bundle,
            guarded=True,
            timeout=durations.parse(spec.requestTimeout).total_seconds() if spec.requestTimeout else None,
        )
        self.clients.client(credentials)  # raises ValueError for what cannot be used
        return credentials

    # --- what is asked

    def wanted(self, run: Run) -> Provider:
        """The provider of the next run."""
        if name := naming.asked_for(run):
            return self.of(run.namespace, name)
        if (run.namespace, DEFAULT_PROVIDER) in self._known:
            return self.of(run.namespace, DEFAULT_PROVIDER)
        if naming.belongs_to_default(run):
            return naming.deleted_default(run.namespace)
        return self.own.provider(
            blocked=None if self._may_use_own(run.namespace) else naming.no_provider(run.namespace),
            patience=self._returning(run.namespace) or self._patience(self.bucket(run.namespace, OWN)),
        )

    def of(self, namespace: str, name: str) -> Provider:
        """The provider that a record names."""
        if name == OWN:
            return self.own.provider(
                confirmed_only=self.own.settings.forbid_foreign_ids or not self._may_use_own(namespace)
            )
        known = self._known.get((namespace, name))
        if known is None:
            return Provider(name=name, address="", blocked=naming.missing(name, namespace))
        unread = Failure(reason=Reason.CREATING, message=f"Reading the key of OpenAIProvider {name}")
        blocked = known.trouble or (unread if known.read is None or known.credentials is None else None)
        if known.declared is None:
            return Provider(name=name, address="", blocked=blocked)
        patience = self._patience(self.bucket(namespace, name))
        return replace(known.declared, credential=known.mark, blocked=blocked, patience=patience)

    def where(self, namespace: str, name: str) -> tuple[str, str | None]:
        """The address and the mark of the key of the provider that a record names, as `of` says them."""
        if name == OWN:
            return self.own.settings.base_url, self.own.key.mark
        known = self._known.get((namespace, name))
        if known is None or known.declared is None:
            return "", None
        return known.declared.address, known.mark

    def _may_use_own(self, namespace: str) -> bool:
        return self.own.allows(namespace, self._labels.get(namespace))

    def bucket(self, namespace: str, name: str) -> Bucket | None:
        """The rate of requests to it; None while nothing can be sent to it.

        What one namespace does with an address and a key slows no other.
        """
        settings, known = self.own.settings, self._known.get((namespace, name))
        whose: Hashable
        if name == OWN:
            whose, rate, burst = (OWN, self.own.key.mark), settings.requests_per_minute or _ANY, None
        elif known is None or known.spec is None or known.declared is None or known.credentials is None:
            return None
        else:
            # The key itself, since the marks of two can be the same.
            whose = (namespace, known.declared.address, known.credentials.key)
            rate = known.declared.requests_per_minute or _ANY
            burst = known.spec.rateLimit.burst if known.spec.rateLimit else None
        return self._buckets.get(whose, name, rate, min(burst or settings.burst, rate))

    def _returning(self, namespace: str) -> Failure | None:
        """Why nothing goes to the operator's own when the namespace's default was there a moment ago.

        Of a run that is seen after that nobody can say whether it was made before.
        """
        past = self._past.get((namespace, DEFAULT_PROVIDER))
        left = past.left + _RETURNS - asyncio.get_running_loop().time() if past else 0.0
        if left <= 0:
            return None
        message = f"OpenAIProvider {DEFAULT_PROVIDER} was deleted just now: waiting whether it is created again"
        return Failure(reason=Reason.CREATING, message=message, retry_after=left)

    @staticmethod
    def _patience(bucket: Bucket | None) -> Failure | None:
        held = bucket.held() if bucket else 0.0
        if held <= 0:
            return None
        message = "The server asked for a pause (Retry-After) of all that is sent to it with this key"
        return Failure(reason=Reason.RATE_LIMITED, message=message, retry_after=held)

    async def confirm(self, run: Run, name: str) -> bool:
        """Whether `name` is surely the provider that `run` asks for, as it is now. Raises ClusterError.

        An OpenAIProvider that was made before the run may be seen after it, and the run must not go to the operator's
        own key meanwhile; and nobody tells of one that was deleted while the API server was out of reach.
        """
        place = (run.namespace, DEFAULT_PROVIDER if name == OWN else name)
        before = self._known.get(place)
        try:
            body = await self.cluster.read_provider(*place)
        except GoneError:
            if before:
                self.saw("DELETED", before.body)
            return name == OWN
        self.saw("MODIFIED", body)
        known = self._known[place]
        if known is not before:
            await self._read(known)
        return name != OWN and known is before

    def wire(self, namespace: str, name: str, api: API, *, ending: bool) -> Wire:
        """The wire to it for `api`; `ending` a run may use the last key there was. Raises CallFailedError."""
        if name == OWN:
            credentials = self.own.credentials(ending=ending)
            if self._own != credentials:
                if self._own:
                    self.clients.forget(self._own)
                self._own = credentials
        else:
            provider = self.of(namespace, name)
            if provider.blocked and not ending:
                raise CallFailedError(provider.blocked)
            last = [known.credentials for each in (self._known, self._past) if (known := each.get((namespace, name)))]
            usable = next(filter(None, last), None)
            if usable is None:
                raise CallFailedError(provider.blocked or naming.missing(name, namespace))
            credentials = usable
        bucket = self.bucket(namespace, name)
        try:
            return wire(api, self.clients, credentials, bucket.spend if bucket else None)
        except ValueError as error:
            failure = Failure(reason=Reason.INVALID_CREDENTIALS, message=f"In {self.own.key.where}: {error}")
            raise CallFailedError(failure) from None

    def refused(self, namespace: str, name: str, failure: Failure) -> None:
        """A call to it failed. Who asks for patience gets it from all; a key that is refused is read again."""
        bucket = self.bucket(namespace, name)
        if bucket and failure.reason is Reason.RATE_LIMITED and failure.retry_after:
            bucket.hold(failure.retry_after)
        if name == OWN and failure.reason is Reason.INVALID_CREDENTIALS:
            self.own.key.refused()
        known = self._known.get((namespace, name))
        if known and failure.reason in _DOUBTFUL:
            known.doubted = asyncio.get_running_loop().time()
        if known and failure.reason is Reason.INVALID_CREDENTIALS:
            known.stale = True
            self._news.set()


def _address(spec: OpenAIProviderSpec) -> str:
    return (spec.baseURL or DEFAULT_BASE_URL).strip().rstrip("/")


def _of(body: Body, settings: Settings) -> Known:
    try:
        spec = OpenAIProviderSpec.model_validate(body.get("spec") or {})
    except ValidationError as error:
        known = Known(body, None, None)
        words = f"this operator cannot read the spec: {unreadable(error)}"
        known.trouble = _trouble(known, Reason.INVALID_SPEC, words)
        return known
    return Known(body, spec, _declared(body["metadata"]["name"], spec, settings))


def _declared(name: str, spec: OpenAIProviderSpec, settings: Settings) -> Provider:
    defaults = spec.defaults or Defaults()
    timeout = durations.parse(spec.requestTimeout) if spec.requestTimeout else settings.request_timeout
    return Provider(
        name=name,
        address=_address(spec),
        api=spec.api,
        default_model=defaults.model or settings.default_model,
        timeout=durations.parse(defaults.timeout) if defaults.timeout else naming.TIMEOUT,
        polling_interval=durations.parse(defaults.pollingInterval)
        if defaults.pollingInterval
        else naming.POLLING_INTERVAL,
        create_settles=timeout + _SETTLES,
        most_runs=spec.maxConcurrentRuns,
        requests_per_minute=(spec.rateLimit.requestsPerMinute if spec.rateLimit else settings.requests_per_minute)
        or None,
    )


def _trouble(known: Known, reason: Reason, message: str) -> Failure:
    return Failure(reason=reason, message=f"OpenAIProvider {known.place[1]} cannot be used: {message}")


def _same(one: Body, other: Body) -> bool:
    return bool(one["metadata"]["uid"] == other["metadata"]["uid"])
