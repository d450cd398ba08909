"""OpenAI's responses in background mode, as cheap as Python allows: about a fifth of what the devkit's stand-in costs.

As a program it serves on loopback until it is killed. It believes whoever asks, keeps no request, and knows nothing but
`POST /v1/responses`, `GET /v1/responses/ID` and `POST /v1/responses/ID/cancel`. What it answers has the devkit's shape,
which `shapes` gives to whoever wants to hold it against the SDK's types.

The bench asks it below `/_bench`; all times are `time.time()`:

====  ============  ===================================================================================
GET   stats         ``Stats``
GET   ends          when each run that finishes does, by its id: the moment itself, not that of a poll
POST  lives         ``[FIRST, LAST]``: new runs last so many seconds, evenly spread; ``null``: for ever
POST  finish        ``SECONDS``: all that go finish, evenly spread over so long; the answer is how many
POST  mark          from now on it is counted who is polled for the first time since
====  ============  ===================================================================================
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import secrets
import time
from collections import Counter
from pathlib import Path
from typing import Any, TypedDict

_FOR_EVER = float("inf")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ANSWER = "All work and no play makes a dull stand-in. " * 23
"""About 1,000 characters."""


class Stats(TypedDict):
    """What the stand-in has counted."""

    requests: dict[str, int]
    """By kind: create, retrieve, cancel, other."""
    runs: int
    cancelled: int
    cancelled_at: float
    """When the last one was."""
    unpolled: int
    """How many of those that went at the mark were not polled since."""
    polled: tuple[float, float]
    """When the first and the last one of them was."""
    idle_polls: int
    """Polls since the mark of runs that had finished before."""


class Run:
    """A response. `ends` is when it completes, for ever that it never does."""

    __slots__ = ("cancelled", "ends", "id", "made", "mark", "rendered", "request", "shown")

    def __init__(self, request: dict[str, Any], ends: float, mark: int) -> None:
        self.id = f"resp_{secrets.token_hex(24)}"
        self.made = time.time()
        self.ends = ends
        self.cancelled = False
        self.mark = mark
        self.request = request
        self.shown = ""
        self.rendered = b""

    def answer(self, now: float) -> bytes:
        """The whole HTTP answer; it is made once for each status."""
        status = "in_progress" if now < self.ends else "cancelled" if self.cancelled else "completed"
        if status != self.shown:
            self.shown, self.rendered = status, _http(200, json.dumps(self.show(status)).encode())
        return self.rendered

    def show(self, status: str) -> dict[str, Any]:
        """The response, as `Response` of OpenAI's description has it."""
        done, asked = status == "completed", self.request
        content = {"type": "output_text", "text": _ANSWER, "annotations": [], "logprobs": []}
        message = {"type": "message", "id": f"msg_{self.id[5:]}", "status": status, "role": "assistant"}
        usage = {
            "input_tokens": 40,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 250,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 290,
        }
        return {
            "id": self.id,
            "object": "response",
            "created_at": int(self.made),
            "status": status,
            "background": True,
            "completed_at": int(self.ends) if done else None,
            "conversation": None,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.get("instructions"),
            "max_output_tokens": None,
            "max_tool_calls": None,
            "metadata": asked.get("metadata") or {},
            "model": asked.get("model") or "gpt-standin",
            "output": [{**message, "content": [content]}] if done else [],
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "truncation": "disabled",
            **({"usage": usage} if done else {}),
        }


class OpenAI:
    """The runs, and what was asked."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._lives: tuple[float, float] | None = None
        self._mark = 0
        self._marked_at = 0.0
        self._requests: Counter[str] = Counter()
        self._stats: Stats = {
            "requests": self._requests,
            "runs": 0,
            "cancelled": 0,
            "cancelled_at": 0.0,
            "unpolled": 0,
            "polled": (0.0, 0.0),
            "idle_polls": 0,
        }

    def serve(self, method: str, path: str, body: bytes) -> bytes:
        """One request; the answer is that of HTTP."""
        _, root, name, *rest = path.split("/")
        if root == "_bench":
            return _http(200, json.dumps(self._control(name, json.loads(body or b"null"))).encode())
        if name == "responses":
            match method, rest:
                case "GET", [id] if run := self._runs.get(id):
                    return self._retrieve(run)
                case "POST", []:
                    return self._create(json.loads(body))
                case "POST", [id, "cancel"] if run := self._runs.get(id):
                    return self._cancel(run)
        self._requests["other"] += 1
        error = {"message": f"no {method} {path} here", "type": "invalid_request_error", "param": None, "code": None}
        return _http(404, json.dumps({"error": error}).encode())

    def _create(self, request: dict[str, Any]) -> bytes:
        self._requests["create"] += 1
        self._stats["runs"] += 1
        now = time.time()
        run = Run(request, now + random.uniform(*self._lives) if self._lives else _FOR_EVER, self._mark)
        self._runs[run.id] = run
        return run.answer(now)

    def _retrieve(self, run: Run) -> bytes:
        self._requests["retrieve"] += 1
        now = time.time()
        if run.ends < self._marked_at:
            self._stats["idle_polls"] += 1
        elif run.mark != self._mark:
            run.mark = self._mark
            self._stats["unpolled"] -= 1
            self._stats["polled"] = (self._stats["polled"][0] or now, now)
        return run.answer(now)

    def _cancel(self, run: Run) -> bytes:
        self._requests["cancel"] += 1
        now = time.time()
        if now < run.ends:
            run.ends, run.cancelled = now, True
            self._stats["cancelled"] += 1
            self._stats["cancelled_at"] = now
        return run.answer(now)

    def _control(self, name: str, body: Any) -> Any:
        now = time.time()
        going = (run for run in self._runs.values() if now < run.ends)
        match name:
            case "stats":
                return self._stats
            case "ends":
                return {run.id: run.ends for run in self._runs.values() if run.ends < _FOR_EVER}
            case "lives":
                self._lives = body
            case "finish":
                ending = list(going)
                for run in ending:
                    run.ends = now + random.uniform(0, body)
                return len(ending)
            case "mark":
                self._mark += 1
                self._marked_at = now
                self._stats |= {"unpolled": sum(1 for _ in going), "polled": (0.0, 0.0), "idle_polls": 0}
        return None


def shapes() -> list[dict[str, Any]]:
    """A response in each status."""
    run = Run({"model": "gpt-5-mini", "metadata": {"team": "bench"}}, time.time(), 0)
    return [run.show(status) for status in ("in_progress", "completed", "cancelled")]


def _http(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}x-request-id: req_{secrets.token_hex(16)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """As much of HTTP/1.1 as the SDK's clients speak."""

    def __init__(self, openai: OpenAI) -> None:
        self._openai = openai
        self._came = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._came += data
        while (head := self._came.find(b"\r\n\r\n")) >= 0:
            method, path, _ = self._came[: self._came.index(b"\r\n")].decode().split(" ")
            length = _LENGTH.search(self._came, 0, head + 2)
            if length is None and method == "POST":
                self._transport.abort()  # chunked: none of the clients sends that
                return
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._came) < end:
                return
            body, self._came = self._came[head + 4 : end], self._came[end:]
            self._transport.write(self._openai.serve(method, path, body))


async def _serve(port_file: Path) -> None:
    openai = OpenAI()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(openai), "127.0.0.1", 0, backlog=4096)
    written = port_file.with_suffix(".written")
    written.write_text(str(server.sockets[0].getsockname()[1]))
    written.rename(port_file)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A lean stand-in for OpenAI's responses.")
    parser.add_argument("--port-file", type=Path, required=True, help="the port is written there")
    asyncio.run(_serve(parser.parse_args().port_file))
