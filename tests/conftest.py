"""What all tests share: one TLS context, and lines at the end of the output, from the workers of pytest-xdist too."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import httpcore2
import pytest

SUMMARY = pytest.StashKey[dict[str, bool]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SUMMARY] = {}


@pytest.fixture(scope="session")
def summary(pytestconfig: pytest.Config) -> dict[str, bool]:
    """Lines for the end of the output; True: nobody shall overlook it."""
    return pytestconfig.stash[SUMMARY]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker hands its lines over."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["summary"] = session.config.stash[SUMMARY]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take a worker's lines; one that crashed has none."""
    node.config.stash[SUMMARY].update(getattr(node, "workeroutput", {}).get("summary", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line, loud in config.stash[SUMMARY].items():
        terminalreporter.write_line(line, red=loud, bold=loud)


@pytest.fixture(scope="session", autouse=True)
def one_tls_context() -> Iterator[None]:
    """Reading the system's certificates takes 40 ms, and each client of the openai SDK would do it anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", functools.cache(httpcore2.default_ssl_context))
        yield
