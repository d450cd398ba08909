"""Specs that an API server would take: made from the CRD's own schema, and set right by the CRD's own rules.

They are validated as the stand-in cluster does it, by the same code. One that breaks a rule is not thrown away: a field
that the rule speaks of is added or left out, until all rules hold.
"""

import copy
import json
import re
from typing import Any, Final

from hypothesis import reject
from hypothesis import strategies as some
from hypothesis.strategies import SearchStrategy

from openairun_devkit.cluster import rules, schema
from openairun_operator.api import durations
from openairun_operator.api.crd import custom_resource_definition

Json = dict[str, Any]

_OPENAPI: Final[Json] = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
SPEC: Final[Json] = _OPENAPI["properties"]["spec"]
STATUS: Final[Json] = _OPENAPI["properties"]["status"]

_RULES: Final = "x-kubernetes-validations"
_TRIES: Final = 60
_LIKELY: Final = 20
"""The length that most texts keep to; a few are as long as they may be."""
_FIELDS: Final = 8
"""How many fields that need not be there an object has, unless a rule wants more."""
_MAX_BYTES: Final = 1_000_000
"""What all of a spec may take: etcd holds objects of 1.5 MiB."""
_CHARACTERS: Final = some.characters(codec="utf-8")  # an API server replaces lone surrogates
_ODD: Final = (
    "", " ", "\x00", "\x1b[31mred\x07", "\r\n\t", "\x7f\x85\u2028", "\u202etxt.exe", "\ufeff\ufffe\uffff", "👩‍🚀🚀",
    "e\u0301" * 8, '"\\{}', "{namespace}%s$(x)", "null", "0", "../..", "\U0010ffff",
)  # fmt: skip
_PLAIN: Final = [*map(chr, range(1, 127)), *"\x85\xa0é\u0301\u2028\u202e\ufeff\U0010ffff🚀"]
"""Characters for texts of which a rule says what they may be made of; it tells itself which of them it takes."""
_KEYS: Final = ("type", "name", "authorization", "headers", "server_label", "properties", "$ref", "", "tools", "mode")


def broken(value: Any, node: Json) -> list[Json]:
    """The rules of this very node that do not hold."""
    return [entry for entry in node.get(_RULES, ()) if rules.check(value, {_RULES: [entry]})]


def refusals(spec: Json) -> list[str]:
    """What an API server would have against the spec, in the order in which the stand-in looks."""
    causes = schema.validate(spec, SPEC, "spec") or rules.check(spec, SPEC, "spec")
    return [f"{cause.field}: {cause.message}" for cause in causes]


def stored(spec: Json) -> Json:
    """The spec as the API server returns it: pruned, without nulls, with defaults."""
    spec = copy.deepcopy(spec)
    schema.prune(spec, SPEC)
    schema.drop_nulls(spec, SPEC)
    schema.set_defaults(spec, SPEC)
    return spec


# --- values of one node


def nested(levels: int) -> Json:
    """An object that holds an object, and so on."""
    value: Json = {}
    for _ in range(levels - 1):
        value = {"in": value}
    return value


_SCALARS: Final = some.one_of(
    some.none(),
    some.booleans(),
    some.integers(-(2**63), 2**63 - 1),
    some.floats(allow_nan=False, allow_infinity=False),
    some.text(_CHARACTERS, max_size=_LIKELY),
    some.sampled_from(_ODD),
)
_NAMES: Final = some.one_of(some.sampled_from(_KEYS), some.text(_CHARACTERS, max_size=8))
_JSON: Final = some.recursive(
    _SCALARS,
    lambda inner: some.one_of(some.lists(inner, max_size=3), some.dictionaries(_NAMES, inner, max_size=3)),
    max_leaves=8,
)
_FREE: Final = some.one_of(
    some.dictionaries(_NAMES, _JSON, max_size=3),
    some.integers(1, 90).map(nested),
    some.just({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}),
)


def _patterns(node: Json) -> list[str]:
    """Regular expressions that the rules ask of a text as a whole."""
    texts = [text for entry in node.get(_RULES, ()) for text in re.findall(r"self\.matches\('(.*?)'\)", entry["rule"])]
    return [text.replace("\\\\", "\\") for text in texts if text.startswith("^")]


def _durations(rule: str) -> SearchStrategy[str]:
    least, most = (int(durations.parse(text).total_seconds()) for text in re.findall(r"duration\('(.*?)'\)", rule))
    seconds = some.one_of(some.sampled_from((least, most)), some.integers(least, most))
    return some.one_of(
        seconds.map(lambda count: f"{count}s"),
        seconds.map(lambda count: durations.show(durations.parse(f"{count}s"))),
        seconds.map(lambda count: f"0h{count}s"),
    )


def _texts(node: Json) -> SearchStrategy[str]:
    least, most = node.get("minLength", 0), node.get("maxLength", 1000)
    timed = [entry["rule"] for entry in node.get(_RULES, ()) if "duration(self)" in entry["rule"]]
    if timed:
        made = _durations(timed[0])
    elif patterns := _patterns(node):
        fitting = [character for character in _PLAIN if re.fullmatch(patterns[0], character, re.ASCII)]
        made = some.text(some.sampled_from(fitting), min_size=max(least, 1), max_size=min(most, _LIKELY))
    else:
        made = some.one_of(
            some.text(_CHARACTERS, min_size=least, max_size=min(most, max(least, _LIKELY))),
            some.sampled_from([text for text in _ODD if len(text) >= least]),
        )
    longest = some.sampled_from("xé🚀").map(lambda character: character * most)
    texts = made if timed else some.one_of(*[made] * 9, longest)
    # Google's CEL is given a text up to its first NUL only: where a rule looks at it, there shall be none.
    return texts.filter(lambda text: not node.get(_RULES) or ("\x00" not in text and not broken(text, node)))


def _numbers(node: Json) -> SearchStrategy[Any]:
    low, high = node.get("minimum"), node.get("maximum")
    whole = some.integers(-(2**31) if low is None else low, 2**31 - 1 if high is None else high)
    if node["type"] == "integer":
        return whole
    return some.one_of(whole, some.floats(low, high, allow_nan=False, allow_infinity=False))


def _size(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


def _lists(node: Json) -> SearchStrategy[list[Any]]:
    least, most = node.get("minItems", 0), node.get("maxItems", 8)
    item = values(node["items"])
    if node.get("x-kubernetes-list-type") == "map":
        keys = node["x-kubernetes-list-map-keys"]
        return some.lists(item, min_size=least, max_size=3, unique_by=lambda each: tuple(each.get(key) for key in keys))
    full = item.map(lambda each: [each] * (most if _size(each) < _MAX_BYTES // (2 * most) else 1))
    return some.one_of(some.lists(item, min_size=least, max_size=3), full)


def _words(node: Json, name: str) -> list[str]:
    """The words that the object's rules compare the field with: a random text would hit none of them."""
    found: list[str] = []
    for entry in node.get(_RULES, ()):
        found += re.findall(rf"self\.{name} [!=]= '(\w+)'", entry["rule"])
        for several in re.findall(rf"self\.{name} in \[(.*?)\]", entry["rule"]):
            found += re.findall(r"'(\w+)'", several)
    return sorted(set(found))


def _field(node: Json, name: str) -> SearchStrategy[Any]:
    plain, words = values(node["properties"][name]), _words(node, name)
    return some.one_of(some.sampled_from(words), plain) if words and "enum" not in node["properties"][name] else plain


def _objects(node: Json) -> SearchStrategy[Json]:
    fields = {name: _field(node, name) for name in node["properties"]}
    required = node.get("required", [])
    optional = [name for name in fields if name not in required]

    @some.composite
    def made(draw: some.DrawFn) -> Json:
        chosen = draw(some.lists(some.sampled_from(optional), max_size=_FIELDS, unique=True)) if optional else []
        value = {name: draw(fields[name]) for name in fields if name in (*required, *chosen)}
        for _ in range(_TRIES):
            wrong = broken(value, node)
            if not wrong:
                return value
            # One of the fields of which the rule asks whether they are there comes, or goes.
            name = draw(some.sampled_from(re.findall(r"has\(self\.(\w+)\)", wrong[0]["rule"])))
            if name in value:
                del value[name]
            else:
                value[name] = draw(fields[name])
        return reject()

    return made()


def _maps(node: Json) -> SearchStrategy[Json]:
    names = some.text(_CHARACTERS, min_size=1, max_size=64)
    made = some.dictionaries(names, values(node["additionalProperties"]), max_size=node.get("maxProperties", 8))
    return made.filter(lambda value: not broken(value, node))


def values(node: Json) -> SearchStrategy[Any]:
    """Values that the schema `node` takes, its rules included."""
    if "enum" in node:
        return some.sampled_from(node["enum"])
    match node["type"]:
        case "string":
            return _texts(node)
        case "boolean":
            return some.booleans()
        case "integer" | "number":
            return _numbers(node)
        case "array":
            return _lists(node)
        case _ if "properties" in node:
            return _objects(node)
        case _ if "additionalProperties" in node:
            return _maps(node)
        case _:
            return _FREE


_SPECS: Final = values(SPEC).filter(lambda spec: _size(spec) < _MAX_BYTES).map(stored)


@some.composite
def specs(draw: some.DrawFn) -> Json:
    """Specs as the API server returns them."""
    return draw(_SPECS)
