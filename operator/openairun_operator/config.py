"""Flags and environment, read once into one frozen Settings."""

import argparse
import ipaddress
import os
import re
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, cast
from urllib.parse import urlsplit

from openairun_operator.api import durations

DEFAULT_BASE_URL = "https://api.openai.com/v1"
DEFAULT_TOKEN_FILE: Final = Path("/var/run/secrets/openai/token")
"""Not that of the API server, which whoever gets it could use there."""
DEFAULT_RATE: Final = 1000
"""Requests a minute of a namespace to an address with a key: OpenAI's historic limit of reads."""
DEFAULT_BURST: Final = 100
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How this operator runs. Durations are timedeltas; `namespaces` empty means all."""

    holder: str
    namespaces: tuple[str, ...] = ()
    lease: tuple[str, str] | None = None
    """Namespace and name of the Lease without which this operator does nothing."""
    base_url: str = DEFAULT_BASE_URL
    api_key_file: Path | None = None
    api_key: str | None = None
    workload_identity: tuple[str, str] | None = None
    """The ids of an identity provider and of a service account at OpenAI, instead of a key."""
    workload_token_file: Path = DEFAULT_TOKEN_FILE
    azure_api_version: str | None = None
    azure_authentication: Literal["APIKey", "BearerToken"] | None = None
    organization: str | None = None
    project: str | None = None
    default_model: str | None = None
    own_provider: bool = True
    """Whether runs that have no OpenAIProvider may use the operator's own key."""
    own_provider_selector: tuple[tuple[str, str], ...] = ()
    """The labels of the namespaces that may; empty means all."""
    forbid_foreign_ids: bool = False
    """Whether such runs may not name what exists at OpenAI already."""
    max_concurrent_runs: int | None = None
    requests_per_minute: int = DEFAULT_RATE
    burst: int = DEFAULT_BURST
    allowed_addresses: tuple[Network, ...] = ()
    """Internal addresses that OpenAIProviders may name all the same."""
    request_timeout: timedelta = timedelta(seconds=30)
    orphan_limit: timedelta = timedelta(minutes=2)
    log_format: Literal["plain", "json"] = "plain"
    verbose: bool = False
    liveness: str | None = None
    metrics: str | None = None

    def __repr__(self) -> str:
        return f"Settings(holder={self.holder!r}, base_url={self.base_url!r})"  # the key stays out of it


_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def _duration(text: str) -> timedelta:
    try:
        bare = re.fullmatch(r"[0-9]+(\.[0-9]+)?", text)
        value = timedelta(seconds=float(text)) if bare else durations.parse(text)
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text[:20]!r}… is too long a duration") from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if value <= timedelta():
        raise argparse.ArgumentTypeError(f"{text!r} must be more than 0s")
    return value


def _lease(text: str) -> tuple[str, str]:
    namespace, _, name = text.partition("/")
    if not (_NAME.fullmatch(namespace) and _NAME.fullmatch(name)):
        raise argparse.ArgumentTypeError(f"{text!r} is no Lease: write namespace/name, such as default/openairun")
    return namespace, name


def _url(text: str) -> str:
    text = text.strip()
    if "@" in text or "?" in text or "#" in text:  # not quoted: it may hold a secret
        raise argparse.ArgumentTypeError("an address with a user, ? or # in it is not supported")
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise argparse.ArgumentTypeError(f"{text!r} is no address: write one such as {DEFAULT_BASE_URL}")
    return text.rstrip("/")


def _identity(text: str) -> tuple[str, str]:
    provider, _, account = text.partition("/")
    if not (re.fullmatch(r"[!-.0-~]+", provider) and re.fullmatch(r"[!-.0-~]+", account)):
        raise argparse.ArgumentTypeError(
            f"{text!r}: write IDENTITY_PROVIDER_ID/SERVICE_ACCOUNT_ID, as OpenAI shows them"
        )
    return provider, account


def _api_version(text: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9._-]{1,64}", text):
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no version: write one such as v1 or 2025-04-01-preview")
    return text


def _served(text: str) -> str:
    url = _url(text)
    if not url.lower().startswith("http://"):
        raise argparse.ArgumentTypeError(f"{url!r}: it is served over http alone, without TLS")
    return url


def _header(text: str) -> str | None:
    text = text.strip()
    if not (text.isascii() and text.isprintable()):
        raise argparse.ArgumentTypeError("it holds characters that no HTTP header can carry")
    return text or None


def _namespace(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a namespace")
    return text


def _model(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise argparse.ArgumentTypeError("write the name of a model, such as gpt-5-mini")
    return text


_LABEL = re.compile(
    r"(?:[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
    r"=([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
)


def _selector(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [pair.strip() for pair in text.split(",")]
    if not all(_LABEL.fullmatch(pair) for pair in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is no selector: write labels, such as team=research,tier=gold")
    return tuple((name, value) for name, _, value in (pair.partition("=") for pair in pairs))


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no whole number from 1 to 9999999")
    return int(text)


def _rate(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}: write a network, such as 127.0.0.0/8") from None


def add_flags(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    """The flags of `run`. OPENAI_BASE_URL, OPENAI_ORG_ID and OPENAI_PROJECT_ID are their defaults."""
    parser.set_defaults(refuse=parser.error)
    add = parser.add_argument
    add(
        "--namespace",
        action="append",
        type=_namespace,
        default=[],
        metavar="NS",
        help="watch this namespace; repeatable (all)",
    )
    add(
        "--lease",
        type=_lease,
        metavar="NAMESPACE/NAME",
        help="act only while holding this Lease, so that several operators can run and one acts (none)",
    )
    add(
        "--base-url",
        type=_url,
        default=environment.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL,
        metavar="URL",
        help="the server's address, or OPENAI_BASE_URL (%(default)s)",
    )
    add(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="a file that holds the key; may appear later, and is read again when it changes. Without it:"
        " OPENAI_API_KEY",
    )
    add(
        "--workload-identity",
        type=_identity,
        metavar="IDENTITY_PROVIDER_ID/SERVICE_ACCOUNT_ID",
        help="use no key: exchange the ServiceAccount's token for one of this service account at OpenAI (none)",
    )
    add(
        "--workload-token-file",
        type=Path,
        metavar="FILE",
        help=f"the ServiceAccount's token, made for OpenAI as its audience ({DEFAULT_TOKEN_FILE})",
    )
    add(
        "--azure-api-version",
        type=_api_version,
        metavar="VERSION",
        help="--base-url is that of Azure OpenAI: send this as api-version, such as v1 (none)",
    )
    add(
        "--azure-authentication",
        choices=("APIKey", "BearerToken"),
        help="how the key is sent to it: in the header api-key, or as a token of Microsoft Entra ID, which something"
        " else keeps new in --api-key-file (APIKey)",
    )
    add("--organization", type=_header, default=environment.get("OPENAI_ORG_ID", ""), help="or OPENAI_ORG_ID")
    add("--project", type=_header, default=environment.get("OPENAI_PROJECT_ID", ""), help="or OPENAI_PROJECT_ID")
    add("--default-model", type=_model, metavar="MODEL", help="for runs that name no model (none)")
    add(
        "--request-timeout",
        type=_duration,
        default=timedelta(seconds=30),
        metavar="DURATION",
        help="for one request to OpenAI (30s)",
    )
    add(
        "--orphan-limit",
        type=_duration,
        default=timedelta(minutes=2),
        metavar="DURATION",
        help="how long a deletion waits for its cancel to be confirmed (2m)",
    )
    add(
        "--no-own-provider",
        action="store_true",
        help="use the operator's own key for no run: each needs an OpenAIProvider in its namespace",
    )
    add(
        "--own-provider-selector",
        type=_selector,
        default=(),
        metavar="LABELS",
        help="use the operator's own key only for namespaces with these labels, such as team=research (all)",
    )
    add(
        "--forbid-foreign-ids",
        action="store_true",
        help="refuse runID, threadID, conversationID and previousResponseID under the operator's own key, which"
        " namespaces share",
    )
    add(
        "--max-concurrent-runs",
        type=_count,
        metavar="N",
        help="how many runs may go at once with the operator's own key; others wait (any number)",
    )
    add(
        "--requests-per-minute",
        type=_rate,
        default=DEFAULT_RATE,
        metavar="N",
        help="with the operator's own key, and of each namespace to an address with a key of its own, unless an"
        " OpenAIProvider says otherwise; 0: any number (%(default)s)",
    )
    add(
        "--burst",
        type=_count,
        default=DEFAULT_BURST,
        metavar="N",
        help="how many of them may be sent at once after a quiet time (%(default)s)",
    )
    add(
        "--allow-address",
        action="append",
        type=_network,
        default=[],
        metavar="CIDR",
        help="let OpenAIProviders name loopback, link-local and metadata addresses of this network; repeatable (none)",
    )
    add("--log-format", choices=("plain", "json"), default="plain", help="(%(default)s)")
    add("--verbose", action="store_true", help="log each decision")
    add("--liveness", type=_served, metavar="URL", help="serve a liveness probe, such as http://0.0.0.0:8080/healthz")
    add("--metrics", type=_served, metavar="URL", help="serve metrics, such as http://0.0.0.0:9090/metrics")


def _contradiction(arguments: argparse.Namespace, environment: Mapping[str, str]) -> str | None:
    """Why these flags cannot stand together; each source of a credential is the only one."""
    workload, azure = arguments.workload_identity, arguments.azure_api_version
    rules = {
        "--workload-identity and --api-key-file: write one of them": workload and arguments.api_key_file,
        "--workload-identity and OPENAI_API_KEY: unset the variable": workload and environment.get("OPENAI_API_KEY"),
        "--workload-identity is OpenAI's own, and not for Azure: leave out --azure-api-version": workload and azure,
        "--workload-token-file needs --workload-identity": arguments.workload_token_file and not workload,
        "--azure-authentication needs --azure-api-version": arguments.azure_authentication and not azure,
        "--azure-api-version needs --base-url, such as https://my-resource.openai.azure.com/openai/v1": azure
        and _url(arguments.base_url) == DEFAULT_BASE_URL,
        "--azure-authentication=BearerToken needs --api-key-file: a token ends, and a variable is read once":
        arguments.azure_authentication == "BearerToken" and not arguments.api_key_file,
    }  # fmt: skip
    return next((said for said, holds in rules.items() if holds), None)


def settings(arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings that the parsed flags and the environment give."""
    if contradiction := _contradiction(arguments, environment):
        arguments.refuse(contradiction)
    return Settings(
        holder=f"{environment.get('POD_NAME') or socket.gethostname()}/{uuid.uuid4().hex[:8]}",
        namespaces=tuple(cast(Sequence[str], arguments.namespace)),
        lease=arguments.lease,
        base_url=_url(arguments.base_url),
        api_key_file=arguments.api_key_file,
        api_key=None if arguments.api_key_file else environment.get("OPENAI_API_KEY"),
        workload_identity=arguments.workload_identity,
        workload_token_file=arguments.workload_token_file or DEFAULT_TOKEN_FILE,
        azure_api_version=arguments.azure_api_version,
        azure_authentication=arguments.azure_authentication or ("APIKey" if arguments.azure_api_version else None),
        organization=arguments.organization,
        project=arguments.project,
        default_model=arguments.default_model,
        own_provider=not arguments.no_own_provider,
        own_provider_selector=arguments.own_provider_selector,
        forbid_foreign_ids=arguments.forbid_foreign_ids,
        max_concurrent_runs=arguments.max_concurrent_runs,
        requests_per_minute=arguments.requests_per_minute,
        burst=arguments.burst,
        allowed_addresses=tuple(arguments.allow_address),
        request_timeout=arguments.request_timeout,
        orphan_limit=arguments.orphan_limit,
        log_format=arguments.log_format,
        verbose=arguments.verbose,
        liveness=arguments.liveness,
        metrics=arguments.metrics,
    )
