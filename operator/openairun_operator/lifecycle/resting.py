"""Which finished runs need nothing, told without reading all of them: after a restart most objects are such."""

import json
from collections.abc import Mapping
from typing import Any

from openairun_operator.api.names import CREATE_AGAIN_ANNOTATION, FINALIZER, RECORD_ANNOTATION
from openairun_operator.lifecycle import digest

_LATER = ("ttlAfterFinished", "outputTo")
"""Fields that leave something to do when the run is over."""


def surely(body: Mapping[str, Any]) -> bool:
    """Whether nothing is left to do for an object as the API server returns it. False: it has to be decided upon.

    That is so of a run that was created for this very definition and is said to be finished, in status and by the
    annotation alike.
    """
    meta, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    if not status.get("finishedAt") or meta.get("deletionTimestamp") or FINALIZER in (meta.get("finalizers") or ()):
        return False
    if status.get("observedGeneration") != meta.get("generation") or any(spec.get(name) for name in _LATER):
        return False
    finished = (each.get("status") for each in status.get("conditions") or () if each.get("type") == "Finished")
    return next(finished, None) == "True" and _recorded(meta, spec, status.get("record") or {})


def _recorded(meta: Mapping[str, Any], spec: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Whether `record`, as status has it, is that of a run which the object asks for, and the annotation agrees."""
    annotations = meta.get("annotations") or {}
    if record.get("state") != "created" or not record.get("id"):
        return False
    key, again = f"{meta.get('namespace')}/{meta['name']}", annotations.get(CREATE_AGAIN_ANNOTATION)
    its = (record.get("uid"), record.get("object")) == (meta["uid"], key)
    if not its or again not in (None, record.get("createAgain")):
        return False
    try:
        same = json.loads(annotations.get(RECORD_ANNOTATION, "")) == record
        return bool(same and record.get("digest") == digest.of(spec))
    except (ValueError, RecursionError):
        return False
