"""The tests' view of the OpenAI stand-in: what it was asked, and what shall go wrong next."""

from __future__ import annotations

import http.client
import json
from collections.abc import Collection
from contextlib import closing
from typing import Any
from urllib.parse import urlencode


class OpenAIControl:
    """Talks to a stand-in's control API on loopback. Its words are the stand-in's own.

    `match` is `METHOD regex`, the regex is searched in the path (`POST /responses$`).
    """

    def __init__(self, port: int, past: Collection[str] = ()) -> None:
        self._port = port
        self._past = past
        self.base_url = f"http://127.0.0.1:{port}/v1"

    def requests(self, method: str | None = None, path: str | None = None) -> list[dict[str, Any]]:
        """The requests so far: n, at, method, path, query, authorization, headers, body, status."""
        return self._call("GET", "requests", {"method": method, "path": path})

    def from_now_on(self) -> OpenAIControl:
        """The same stand-in; of its runs, those that are still to come."""
        return OpenAIControl(self._port, {run["id"] for run in self.runs()})

    def count(self, method: str, path: str) -> int:
        return len(self.requests(method, path))

    def runs(self) -> list[dict[str, Any]]:
        """Every run: id, wire, thread, status, metadata, created_at, cancel_calls, polls."""
        runs: list[dict[str, Any]] = self._call("GET", "runs")
        return [run for run in runs if run["id"] not in self._past]

    def submits(self) -> list[dict[str, Any]]:
        """Every submission of tool results that was taken: at, run, results."""
        submits: list[dict[str, Any]] = self._call("GET", "submits")
        return submits

    def forget_requests(self) -> None:
        self._call("DELETE", "requests")

    def play(self, run_id: str, script: str) -> None:
        """From now on the run follows this script."""
        self._call("POST", f"runs/{run_id}", body={"script": script})

    def fault(self, match: str, **what: Any) -> str:
        """Let the next matching request go wrong, and return the fault's id.

        `what`: times, status, reason, body, headers, content_type, delay, close, hold, process, as the
        stand-in's `Fault` has them.
        """
        return self._call("POST", "faults", body={"match": match, **what})["id"]

    def faults(self) -> list[dict[str, Any]]:
        """Each fault with `matched` and `waiting`, how many requests it took and holds."""
        return self._call("GET", "faults")

    def release(self, fault: str | None = None) -> None:
        """Let go what one fault holds, by its id, or what all hold."""
        self._call("POST", "release", body={"id": fault} if fault else {})

    def heal(self) -> None:
        """End all faults."""
        self._call("DELETE", "faults")

    def wait(self, method: str, path: str, count: int = 1, timeout: float = 30) -> list[dict[str, Any]]:
        """Wait until `count` matching requests have come in, earlier ones included; `timeout` in seconds."""
        query = {"method": method, "path": path, "count": count, "timeout": timeout}
        return self._call("GET", "wait", query, timeout=timeout + 10)

    def accept_keys(self, *keys: str) -> None:
        """Accept these keys from now on, and no others."""
        self._call("POST", "keys", body={"keys": list(keys)})

    def _call(
        self,
        method: str,
        path: str,
        query: dict[str, Any] | None = None,
        *,
        body: Any = None,
        timeout: float = 10,
    ) -> Any:
        asked = urlencode({name: value for name, value in (query or {}).items() if value is not None})
        url = f"/_standin/{path}" + (f"?{asked}" if asked else "")
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)) as connection:
            connection.request(
                method,
                url,
                body=None if body is None else json.dumps(body),
                headers={} if body is None else {"Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            text = answer.read().decode()
        if answer.status >= 400:
            raise AssertionError(f"the OpenAI stand-in answered {answer.status} to {method} {url}: {text}")
        return json.loads(text) if text else None
