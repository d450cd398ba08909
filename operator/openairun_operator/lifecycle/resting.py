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
    try:
        return _over(body) and _recorded(body)
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError):
        return False  # in no form that is known here: whoever reads all of it says what is wrong


def _over(body: Mapping[str, Any]) -> bool:
    """Whether it is said to be finished, in this generation, and neither held nor to be deleted or stored."""
    meta, spec, status = body["metadata"], body["spec"], body["status"]
    if not status.get("finishedAt") or meta.get("deletionTimestamp") or FINALIZER in (meta.get("finalizers") or ()):
        return False
    if status.get("observedGeneration") != meta.get("generation") or any(spec.get(name) for name in _LATER):
        return False
    if not any(each["type"] == "Finished" and each["status"] == "True" for each in status["conditions"]):
        return False
    return isinstance(status["phase"], str) and isinstance(status["api"], str)


def _recorded(body: Mapping[str, Any]) -> bool:
    """Whether the record in status is that of a run which the object asks for, and the annotation agrees."""
    meta, annotations, record = body["metadata"], body["metadata"]["annotations"], body["status"]["record"]
    if record["state"] != "created" or not record["id"] or record["uid"] != meta["uid"]:
        return False
    if record["object"] != f"{meta['namespace']}/{meta['name']}" or record["digest"] != digest.of(body["spec"]):
        return False
    again = annotations.get(CREATE_AGAIN_ANNOTATION)
    return again in (None, record.get("createAgain")) and bool(json.loads(annotations[RECORD_ANNOTATION]) == record)
