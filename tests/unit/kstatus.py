"""How kstatus (Flux, Helm, kpt) judges an object of a kind that it does not know: a port of cli-utils' rules."""

from collections.abc import Mapping
from typing import Any


def outcome(body: Mapping[str, Any]) -> str:
    """Terminating, InProgress, Failed or Current."""
    meta, status = body["metadata"], body.get("status") or {}
    if meta.get("deletionTimestamp"):
        return "Terminating"
    if "observedGeneration" in status and status["observedGeneration"] != meta.get("generation"):
        return "InProgress"
    conditions = status.get("conditions") or []
    for condition in conditions:
        match condition["type"], condition["status"]:
            case "Reconciling", "True":
                return "InProgress"
            case "Stalled", "True":
                return "Failed"
    for condition in conditions:
        if condition["type"] == "Ready":
            return "Current" if condition["status"] == "True" else "InProgress"
    return "Current"
