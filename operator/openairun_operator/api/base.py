"""What all models of the resource have in common."""

from pydantic import BaseModel, ConfigDict, ValidationError


class Model(BaseModel):
    """A piece of the resource. Unknown fields are the server's to prune; a newer field is no error here."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


def unreadable(error: ValidationError) -> str:
    """What of a spec the models cannot read, for a person: the first three places."""
    return "; ".join(f"spec.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
