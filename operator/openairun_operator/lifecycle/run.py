"""A resource as the API server has it, parsed once."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from openairun_operator.api import durations
from openairun_operator.api.base import dump, slim, unreadable
from openairun_operator.api.names import CREATE_AGAIN_ANNOTATION, FINALIZER, RECORD_ANNOTATION
from openairun_operator.api.record import API, Record
from openairun_operator.api.spec import OpenAIRunSpec
from openairun_operator.api.status import OpenAIRunStatus
from openairun_operator.lifecycle import digest

_ROOM = 1024
_ADVANCE = {"claimed": 0, "released": 1, "refused": 2, "cancelled": 2, "created": 3}
_TURNS = {"claimed": 0, "released": 1, "refused": 2, "taken": 3}
_ASKED = {"object", "uid", "digest", "createAgain", "adopted"}
"""Fields of a record that change without a step of its run."""
_FIXED = {
    "thread",
    "api",
    "provider",
    "address",
    "credential",
    "submittedAt",
    "recordedAt",
    "timeout",
    "pollingInterval",
}
"""Fields that are settled when the run's id is known."""
_APPLIERS = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "argocd.argoproj.io/instance": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
}
"""Labels and annotations by which GitOps tools know what they apply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One OpenAIRun. `record` is the best of the annotation and its mirror in status, or None."""

    namespace: str
    name: str
    uid: str
    version: str
    """The resourceVersion."""
    generation: int
    created: str
    """When the object was created: RFC 3339, in seconds."""
    deleted_at: datetime | None
    finalizers: tuple[str, ...]
    """All there are, in their order."""
    spec: OpenAIRunSpec | None
    spec_error: str | None
    digest: str
    """Of the definition; empty where `spec` is None: nothing is decided by it then, and it may be nested too deep."""
    create_again: str | None
    applied_by: str | None
    """The GitOps tool that applies the object, as far as its labels and annotations tell."""
    record: Record | None
    annotation: str | None
    """The annotation that holds the record, as it is."""
    record_annotated: bool
    """Whether the annotation holds `record` as it is, for this very object."""
    record_garbled: bool
    """Whether there is no `record`, and what the annotation holds cannot be read: it may speak of a run."""
    status: OpenAIRunStatus
    odd_status: Mapping[str, Any] | None
    """The status as it is, where `status` does not tell all of it. It is kept only there: it takes room."""

    @property
    def has_finalizer(self) -> bool:
        """Whether the operator's own is among them."""
        return FINALIZER in self.finalizers

    @property
    def raw_status(self) -> Mapping[str, Any]:
        """The status as it is."""
        return dump(self.status) if self.odd_status is None else self.odd_status

    @property
    def key(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    @property
    def api(self) -> API:
        """The API that the definition asks for."""
        return "Assistants" if self.spec and self.spec.threadID else "Responses"

    @property
    def waits(self) -> bool:
        """Whether Ready waits for the run's end: `spec.waitForCompletion`."""
        return self.spec is None or self.spec.waitForCompletion


def _record(data: Any, key: str) -> Record | None:
    """The record in `data`; None if it is another object's, copied.

    Raises ValueError for what cannot be read: somebody's hand, or an operator of another version.
    """
    if not isinstance(data, dict):
        raise ValueError("no object")
    if isinstance(data.get("object"), str) and data["object"] != key:
        return None
    record = Record.model_validate({"digest": ""} | data)
    if record.state == "created" and not record.id:
        raise ValueError("created, and no id")
    for text in (record.timeout, record.pollingInterval):
        if text is not None:
            durations.parse(text)
    return record


def _records(annotation: str | None, mirror: Any, key: str) -> tuple[Record | None, Record | None, bool]:
    """The record of the annotation, that of its mirror in status, and whether the annotation cannot be read."""
    annotated, mirrored, said, garbled = None, None, None, False
    if annotation:
        try:
            said = json.loads(annotation)
            annotated = _record(said, key)
        except ValueError:
            garbled = True
    if said == mirror:
        mirrored = annotated
    elif mirror:
        with contextlib.suppress(ValueError):
            mirrored = _record(mirror, key)
    return annotated, mirrored, garbled


def _best(annotated: Record | None, mirrored: Record | None) -> Record | None:
    """The later attempt; of one attempt the further state.

    The annotation is for every user to edit, so of a run that both name it counts only for what users may ask by it.
    """
    if annotated is None or mirrored is None or annotated is mirrored:
        return annotated or mirrored
    if annotated.token != mirrored.token:
        return max(annotated, mirrored, key=_progress)
    if not (annotated.id and mirrored.id):
        further = max(annotated, mirrored, key=_progress)
        known = {name: value for name in _FIXED if (value := getattr(mirrored, name)) is not None}
        return further.model_copy(update=known)
    if annotated.id != mirrored.id:
        return mirrored
    fixed = _FIXED if _progress(annotated) > _progress(mirrored) else Record.model_fields.keys() - _ASKED
    return annotated.model_copy(update={name: getattr(mirrored, name) for name in fixed})


def _progress(record: Record) -> tuple[Any, ...]:
    turn = record.turn
    return (
        record.submittedAt,
        _ADVANCE[record.state],
        record.recordedAt is not None,
        (turn.submittedAt, _TURNS[turn.state]) if turn else (record.submittedAt, -1),
    )


def parse(body: Mapping[str, Any]) -> Run:
    """The run in an object as the API server returns it.

    A spec that the models cannot read (the CRD of another version) gives `spec` None and `spec_error`;
    a status that they cannot read counts as absent: it is the operator's own to write.
    """
    meta = body["metadata"]
    annotations = meta.get("annotations") or {}
    marks = annotations.keys() | (meta.get("labels") or {}).keys()
    key = f"{meta.get('namespace')}/{meta['name']}"
    raw_spec = body.get("spec") or {}
    raw_status = body.get("status") or {}
    spec, spec_error = None, None
    try:
        spec = slim(OpenAIRunSpec.model_validate(raw_spec))
    except ValidationError as error:
        spec_error = unreadable(error)
    try:
        status = slim(OpenAIRunStatus.model_validate(raw_status))
    except ValidationError:
        status = OpenAIRunStatus()
    annotation = annotations.get(RECORD_ANNOTATION)
    annotated, mirrored, garbled = _records(annotation, raw_status.get("record"), key)
    record = _best(annotated, mirrored)
    annotated_as_is = record is not None and record == annotated and record.uid == meta["uid"]
    if record and record.uid != meta["uid"]:
        record = record.model_copy(update={"uid": meta["uid"]})  # restored from a backup: still its run
    record = status.record if record == status.record else slim(record)
    return Run(
        namespace=meta.get("namespace", ""),
        name=meta["name"],
        uid=meta["uid"],
        version=str(meta.get("resourceVersion", "")),
        generation=meta.get("generation", 1),
        created=meta.get("creationTimestamp", ""),
        deleted_at=_time(meta.get("deletionTimestamp")),
        finalizers=tuple(meta.get("finalizers") or ()),
        spec=spec,
        spec_error=spec_error,
        digest=digest.of(raw_spec) if spec else "",
        create_again=annotations.get(CREATE_AGAIN_ANNOTATION),
        applied_by=next((tool for mark, tool in _APPLIERS.items() if mark in marks), None),
        record=record,
        annotation=annotation,
        record_annotated=annotated_as_is,
        record_garbled=garbled and record is None,
        status=status,
        odd_status=None if dump(status) == raw_status else raw_status,
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def dump_record(record: Record) -> str:
    """The record as the annotation holds it.

    A claim keeps room, as white space, for the id that comes later: an object's annotations have a limit of 256 KiB
    in all, and it must not be the id that meets it, when the run exists already.
    """
    text = json.dumps(record.model_dump(mode="json", exclude_none=True), separators=(",", ":"))
    claimed = record.state == "claimed" or (record.turn is not None and record.turn.state == "claimed")
    return text + " " * _ROOM if claimed else text
