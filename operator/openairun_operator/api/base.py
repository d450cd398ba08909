"""What all models of the resource have in common."""

from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class Model(BaseModel):
    """A piece of the resource. Unknown fields are the server's to prune; a newer field is no error here."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class Whole(Model):
    """A piece of a status that is only ever written as a whole: the API server notes whose it is once, and not for each
    of its fields, which would take more room than they do, and time with each write.
    """

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})


_FIELDS_SET: dict[frozenset[str], set[str]] = {}
_SETS: Final = 1000
_AnyModel = TypeVar("_AnyModel", bound=BaseModel | None)


def slim(model: _AnyModel) -> _AnyModel:
    """The model, which is kept for long, with the names of its set fields shared with others that have the same set.

    They take more room than the values: 728 bytes for five names. No model is changed in place, and a copy of one has
    its own.
    """
    if isinstance(model, BaseModel):
        names = frozenset(model.__pydantic_fields_set__)
        if (known := _FIELDS_SET.get(names)) is not None:
            object.__setattr__(model, "__pydantic_fields_set__", known)
        elif len(_FIELDS_SET) < _SETS:
            _FIELDS_SET[names] = model.__pydantic_fields_set__
        for value in model.__dict__.values():
            for each in value if isinstance(value, list) else (value,):
                if isinstance(each, BaseModel):
                    slim(each)
    return model


def dump(model: BaseModel) -> dict[str, Any]:
    """The model as JSON: times in RFC 3339, absent where unknown."""
    out = model.model_dump(mode="json", exclude_none=True)
    if not out.get("conditions"):
        out.pop("conditions", None)  # else an object that nothing is to be said of yet would be written to
    return out


def unreadable(error: ValidationError) -> str:
    """What of a spec the models cannot read, for a person: the first three places."""
    return "; ".join(f"spec.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
