"""The baseline: the operator that a competent person writes with kopf in an afternoon, in 60 lines.

It does what is to be done, in the way that kopf's documentation shows, with defaults throughout: kopf's settings, the
SDK's client. It is neither handicapped nor tuned. `baseline.yaml` has its CRD and its rights.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import kopf
from openai import AsyncOpenAI

FINISHED = ("completed", "failed", "cancelled", "incomplete")
INTERVAL = float(os.environ.get("POLL_INTERVAL", "5"))

client = AsyncOpenAI()  # OPENAI_API_KEY, OPENAI_BASE_URL


@kopf.on.create("bench.openairun.dev", "v1", "naiveruns")
async def create(
    body: kopf.Body, spec: kopf.Spec, patch: kopf.Patch, name: str, namespace: str | None, **_: Any
) -> None:
    response = await client.responses.create(
        model=spec["model"],
        input=spec["input"],
        instructions=spec.get("instructions"),
        metadata={**spec.get("metadata", {}), "namespace": namespace or "", "name": name},
        background=True,
        store=True,
    )
    patch.status["runID"] = response.id
    patch.status["phase"] = response.status
    kopf.info(body, reason="Created", message=f"Created run {response.id}")


def goes(status: kopf.Status, **_: Any) -> bool:
    """Whether there is a run to look at."""
    return "runID" in status and status.get("phase") not in FINISHED


@kopf.timer("bench.openairun.dev", "v1", "naiveruns", interval=INTERVAL, when=goes)
async def poll(body: kopf.Body, status: kopf.Status, patch: kopf.Patch, **_: Any) -> None:
    response = await client.responses.retrieve(status["runID"])
    patch.status["phase"] = response.status
    patch.status["lastPolled"] = datetime.now(UTC).isoformat()
    if response.status in FINISHED:
        patch.status["output"] = response.output_text
        patch.status["usage"] = response.usage.model_dump() if response.usage else None
        kopf.info(body, reason="Finished", message=f"Run {response.id} is {response.status}")


@kopf.on.delete("bench.openairun.dev", "v1", "naiveruns")
async def cancel(status: kopf.Status, **_: Any) -> None:
    if goes(status):
        await client.responses.cancel(status["runID"])
