"""Turn a pydantic model into a structural schema, the subset of OpenAPI v3 that a CustomResourceDefinition may hold.

pydantic's JSON schema goes in, a tree without references, unions, titles or defaults comes out. What cannot be expressed, and what
has no bound, is refused with its path: the API server would refuse the former, and the latter is how one object fills an etcd.
No default reaches the schema: absent means "the class decides" for most fields, and defaulted fields show up as drift in GitOps
tools. Defaults and mutability go into the descriptions instead, where `kubectl explain` shows them.

Source: Kubernetes documentation, "Extend the Kubernetes API with CustomResourceDefinitions", section on structural schemas.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_RULES = "x-kubernetes-validations"
_IMMUTABLE_RULE = "self == oldSelf"
_DROPPED = frozenset({"title", "default", "additionalProperties", "$defs"})
_COMMON = frozenset({"type", "description", _RULES})
_KEPT: Mapping[str, frozenset[str]] = {
    "string": _COMMON | {"minLength", "maxLength", "pattern", "enum"},
    "integer": _COMMON | {"minimum", "maximum", "enum"},
    "boolean": _COMMON,
    "array": _COMMON | {"items", "minItems", "maxItems", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"},
    "object": _COMMON | {"properties", "required", "additionalProperties", "minProperties", "maxProperties"},
}
# RE2 (API server) and the regular expressions of pydantic agree on these only in spelling: \d there is Unicode's, here ASCII's.
_AMBIGUOUS_PATTERN = re.compile(r"\\[dDwWsSbB]|\(\?[=!<]|\\[1-9]")


class SchemaError(ValueError):
    """A model says something that a structural schema cannot say. Carries the path of the field."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


def structural_schema(model: type[BaseModel]) -> Schema:
    """Write the schema of a model.

    Raises:
        SchemaError: a field has no bound, or a type or keyword that has no structural form.
    """
    document = model.model_json_schema(by_alias=True, mode="validation")
    return _node(document, document.get("$defs", {}), model.__name__)


def _node(node: Mapping[str, Any], defs: Mapping[str, Schema], path: str) -> Schema:
    flat = _flatten(node, defs, path)
    description = _describe(flat)
    if flat.get("x-kubernetes-int-or-string"):
        return _int_or_string(flat, description)
    kind = flat.get("type")
    if kind is None or kind not in _KEPT:
        raise SchemaError(path, f"type {kind!r} has no structural form")
    unknown = flat.keys() - _KEPT[kind] - _DROPPED
    if unknown:
        raise SchemaError(path, f"cannot express {', '.join(sorted(unknown))}")
    out: Schema = ({"description": description} if description else {}) | {"type": kind}
    out |= _WRITERS[kind](flat, defs, path)
    if _RULES in flat:
        out[_RULES] = flat[_RULES]
    return out


def _flatten(node: Mapping[str, Any], defs: Mapping[str, Schema], path: str) -> Schema:
    """Resolve the reference and the `X or null` union that a field's node may be; the field's own words win."""
    out = dict(node)
    while True:
        if "$ref" in out:
            inner: Mapping[str, Any] = defs[out.pop("$ref").removeprefix("#/$defs/")]
        elif "anyOf" in out and "x-kubernetes-int-or-string" not in out:
            choices = [choice for choice in out.pop("anyOf") if choice != {"type": "null"}]
            if len(choices) != 1:
                raise SchemaError(path, "a union has no structural form")
            inner = choices[0]
        else:
            break
        rules = [*inner.get(_RULES, []), *out.get(_RULES, [])]
        out = {**inner, **out}
        if rules:
            out[_RULES] = rules
    if "const" in out:
        out["enum"] = [out.pop("const")]
    return out


def _describe(node: Mapping[str, Any]) -> str:
    """Description on one line, with default and mutability."""
    text = " ".join(str(node.get("description", "")).split())
    default = node.get("default")
    if default not in (None, "", [], {}) and not isinstance(default, dict | list):
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        text += f" Default: {shown}."
    if any(rule["rule"] == _IMMUTABLE_RULE for rule in node.get(_RULES, [])):
        text += " Immutable."
    return text.strip()


def _string(node: Schema, _defs: Mapping[str, Schema], path: str) -> Schema:
    if "enum" in node:
        return {"enum": list(node["enum"])}
    if "maxLength" not in node:
        raise SchemaError(path, "a string needs maxLength")
    out = {key: node[key] for key in ("minLength", "maxLength", "pattern") if key in node}
    if _AMBIGUOUS_PATTERN.search(node.get("pattern", "")):
        raise SchemaError(path, "the pattern means different things to RE2 and to pydantic")
    return out


def _integer(node: Schema, _defs: Mapping[str, Schema], path: str) -> Schema:
    if "minimum" not in node or "maximum" not in node:
        raise SchemaError(path, "an integer needs minimum and maximum")
    return {"format": "int64", "minimum": node["minimum"], "maximum": node["maximum"]}


def _boolean(_node: Schema, _defs: Mapping[str, Schema], _path: str) -> Schema:
    return {}


def _array(node: Schema, defs: Mapping[str, Schema], path: str) -> Schema:
    if "maxItems" not in node or "items" not in node:
        raise SchemaError(path, "a list needs maxItems and one type of items")
    out: Schema = {key: node[key] for key in ("minItems", "maxItems") if key in node}
    out["items"] = _node(node["items"], defs, f"{path}[]")
    out["x-kubernetes-list-type"] = node.get("x-kubernetes-list-type", "atomic")
    keys = node.get("x-kubernetes-list-map-keys")
    if keys:
        missing = set(keys) - set(out["items"].get("required", ()))
        if missing:
            raise SchemaError(path, f"key {', '.join(sorted(missing))} of the list must be required in its items")
        out["x-kubernetes-list-map-keys"] = list(keys)
    if out["x-kubernetes-list-type"] == "set" and out["items"]["type"] in ("array", "object"):
        raise SchemaError(path, "a set holds scalars only")
    return out


def _object(node: Schema, defs: Mapping[str, Schema], path: str) -> Schema:
    properties, values = node.get("properties"), node.get("additionalProperties")
    if properties is not None:
        if isinstance(values, dict):
            raise SchemaError(path, "an object has either named fields or a type of values")
        out: Schema = {"properties": {name: _node(field, defs, f"{path}.{name}") for name, field in properties.items()}}
        if node.get("required"):
            out["required"] = sorted(node["required"])
        return out
    if not isinstance(values, dict):
        raise SchemaError(path, "an object needs named fields or a type of values")
    if "maxProperties" not in node:
        raise SchemaError(path, "a map needs maxProperties")
    out = {key: node[key] for key in ("minProperties", "maxProperties") if key in node}
    out["additionalProperties"] = _node(values, defs, f"{path}{{}}")
    return out


def _int_or_string(node: Schema, description: str) -> Schema:
    out: Schema = {"description": description} if description else {}
    out |= {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
    return out | {key: node[key] for key in ("minimum", "maximum", "maxLength", "pattern")}


_WRITERS = {"string": _string, "integer": _integer, "boolean": _boolean, "array": _array, "object": _object}
