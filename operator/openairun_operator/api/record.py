"""The operator's own record of a run: written before the create is sent, completed right after it.

It stands in the annotation `openairun.dev/run` and, mirrored, in `status.record`, so that either one may be
lost (a restored backup drops status, `kubectl replace` drops annotations) and the run is still known.
"""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from openairun_operator.api.base import Model

API = Literal["Responses", "Assistants"]
RecordState = Literal["claimed", "created", "refused", "released"]


class Record(Model):
    """One attempt to create a run, and what became of it."""

    version: Annotated[int, Field(description="The version of this record's form.")] = 1
    object: Annotated[str, Field(description="namespace/name of the resource it was made for.")]
    uid: Annotated[str, Field(description="The uid of the resource it was made for.")]
    digest: Annotated[str, Field(description="The digest of the definition that was sent.")]
    token: Annotated[str, Field(description="A random mark, sent along as metadata, by which a search knows the run.")]
    holder: Annotated[str, Field(description="The operator process that made the attempt.")]
    state: Annotated[
        RecordState,
        Field(
            description="claimed: a create may have been sent. created: id is the run. refused: OpenAI refused the"
            " definition. released: surely not created."
        ),
    ]
    api: Annotated[API, Field(description="The API that the run was created over.")]
    provider: Annotated[str, Field(description="Whose key and address it was created with.")]
    address: Annotated[str, Field(description="The address it was sent to.")]
    credential: Annotated[
        str | None, Field(description="A mark of the key it was created with, which does not tell the key.")
    ] = None
    thread: Annotated[str | None, Field(description="The thread it runs on.")] = None
    id: Annotated[str | None, Field(description="The run's id at OpenAI.")] = None
    submittedAt: Annotated[AwareDatetime, Field(description="When the attempt was made, before it was sent.")]
    recordedAt: Annotated[
        AwareDatetime | None, Field(description="When the id was known; the timeout counts from it.")
    ] = None
    timeout: Annotated[str | None, Field(description="The operator's default timeout at that moment.")] = None
    pollingInterval: Annotated[
        str | None, Field(description="The operator's default polling interval at that moment.")
    ] = None
    createAgain: Annotated[str | None, Field(description="The last value of the create-again annotation.")] = None
