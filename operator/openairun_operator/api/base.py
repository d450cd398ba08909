"""What all models of the resource have in common."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A piece of the resource. Unknown fields are the server's to prune; a newer field is no error here."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)
