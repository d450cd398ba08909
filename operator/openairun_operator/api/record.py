"""The operator's own record of a run: written before the create is sent, completed right after it.

It stands in the annotation `openairun.dev/run` and, mirrored, in `status.record`, so that either one may be
lost (a restored backup drops status, `kubectl replace` drops annotations) and the run is still known.
"""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from openairun_operator.api.base import Model, Whole
from openairun_operator.api.rules import ATOMIC

API = Literal["Responses", "Assistants"]
RecordState = Literal["claimed", "created", "refused", "released", "cancelled"]
TurnState = Literal["claimed", "taken", "refused", "released"]


class Usage(Whole):
    """Tokens used, as OpenAI counts them."""

    promptTokens: Annotated[int | None, Field(description="Tokens that went in.")] = None
    completionTokens: Annotated[int | None, Field(description="Tokens that came out.")] = None
    totalTokens: Annotated[int | None, Field(description="Both together.")] = None
    cachedTokens: Annotated[int | None, Field(description="Of those that went in, taken from a cache.")] = None
    reasoningTokens: Annotated[int | None, Field(description="Of those that came out, spent on reasoning.")] = None


class Turn(Model):
    """One submission of tool outputs, and what became of it."""

    token: Annotated[str, Field(description="A random mark of this submission.")]
    state: Annotated[
        TurnState,
        Field(
            description="claimed: it may have been sent. taken: the run goes on. refused: OpenAI refused the outputs."
            " released: surely not sent."
        ),
    ]
    digest: Annotated[str, Field(description="The digest of the outputs that were sent.")]
    calls: Annotated[list[str], Field(description="The calls that it answers.", json_schema_extra=ATOMIC)]
    submittedAt: Annotated[AwareDatetime, Field(description="When it was made, before it was sent.")]
    again: Annotated[
        bool | None, Field(description="True if it was made beside one of which nobody knows what came of it.")
    ] = None


class Record(Whole):
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
            " definition. released: surely not created. cancelled: cancelled before there was a run."
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
    adopted: Annotated[bool | None, Field(description="True for a run that was taken up by spec.runID.")] = None
    createAgain: Annotated[str | None, Field(description="The last value of the create-again annotation.")] = None
    current: Annotated[
        str | None, Field(description="The last response of a run that is made of several; id is the first.")
    ] = None
    responses: Annotated[int | None, Field(description="How many responses there are, if more than one.")] = None
    turn: Annotated[Turn | None, Field(description="The last submission of tool outputs.")] = None
    answered: Annotated[
        list[str] | None,
        Field(description="The calls that were answered, the last 128.", json_schema_extra=ATOMIC),
    ] = None
    spent: Annotated[Usage | None, Field(description="Tokens used by the responses before the current one.")] = None

    @property
    def followed(self) -> str | None:
        """The id to look at: of a run made of several responses, the last."""
        return self.current or self.id
