"""What a plain type cannot say: rules, immutability, list kinds. Each marker carries both of its sides.

A marker sits in `Annotated[...]` of a field, or in `cel_rules` of a model. It has two effects that belong together: pydantic runs
its Python predicate, and the JSON schema gets its Kubernetes twin (`x-kubernetes-…`), which `generate` copies into the CRD. The
contract tests send one table of manifests through both sides and compare.
Transition rules (`Immutable`) need the object before the change: `broken_transitions` compares two models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from .base import ApiModel

RULES = "x-kubernetes-validations"


def _with_rule(schema: JsonSchemaValue, rule: str, message: str) -> JsonSchemaValue:
    """Append one validation rule to a schema node, keeping those that other markers added."""
    return schema | {RULES: [*schema.get(RULES, []), {"rule": rule, "message": message}]}


@dataclass(frozen=True, slots=True)
class Cel:
    """A validation rule: the expression that the API server runs, and the predicate that pydantic runs."""

    rule: str
    """CEL; `self` is the annotated value."""
    message: str
    """What is wrong and what to write instead."""
    holds: Callable[[Any], bool]
    """The same rule in Python: gets the validated value (inside `cel_rules`: the model)."""

    def check(self, value: Any) -> Any:
        """Return the value, or raise ValueError with the message of the rule."""
        if not self.holds(value):
            raise ValueError(self.message)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return _with_rule(handler(schema), self.rule, self.message)


@dataclass(frozen=True, slots=True)
class Immutable:
    """The field keeps its first value."""

    message: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return _with_rule(handler(schema), "self == oldSelf", self.message)


@dataclass(frozen=True, slots=True)
class ListSet:
    """A list of scalars without repetitions, merged by value under server-side apply."""

    def check(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the list, or raise ValueError naming what is repeated."""
        repeated = _first_repeated(value)
        if repeated is not None:
            raise ValueError(f"Duplicate value: {str(repeated)[:64]!r}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"x-kubernetes-list-type": "set"}


@dataclass(frozen=True, slots=True)
class ListMap:
    """A list of objects told apart by one required field, merged by it under server-side apply."""

    key: str
    """Name of the field on the wire (which for these fields is also its Python name)."""

    def check(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the list, or raise ValueError naming the key that is repeated."""
        repeated = _first_repeated(tuple(getattr(item, self.key) for item in value))
        if repeated is not None:
            raise ValueError(f"Duplicate value: {self.key} {str(repeated)[:64]!r}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [self.key]}


@dataclass(frozen=True, slots=True)
class IntOrString:
    """A value that may be written as a number or as text, such as a Kubernetes quantity."""

    maximum: int
    pattern: str
    max_length: int

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        bounds = {"minimum": 0, "maximum": self.maximum, "pattern": self.pattern, "maxLength": self.max_length}
        return {"x-kubernetes-int-or-string": True} | bounds


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _without_nulls(value: Any) -> Any:
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, Mapping) else value


WHOLE = BeforeValidator(_whole)
"""JSON has one kind of number, so 5.0 is an integer to the API server."""
NO_NULLS = BeforeValidator(_without_nulls)
"""In maps, as in objects, null is another way to leave an entry out."""


class ObjectModel(ApiModel):
    """Base of everything inside our Kubernetes objects: null is another way to leave a field out."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        return _without_nulls(value)


class RuledModel(ObjectModel):
    """A model with rules over several of its fields."""

    cel_rules: ClassVar[tuple[Cel, ...]] = ()

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        for rule in self.cel_rules:
            rule.check(self)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        node = handler.resolve_ref_schema(handler(schema))
        for rule in cls.cel_rules:
            node.update(_with_rule(node, rule.rule, rule.message))
        return node


def broken_transitions(old: BaseModel, new: BaseModel) -> tuple[str, ...]:
    """Messages of the transition rules that a change from `old` to `new` breaks; empty when it is allowed."""
    return tuple(_broken(old, new))


def _broken(old: BaseModel, new: BaseModel) -> Iterator[str]:
    for name, field in type(new).model_fields.items():
        before, after = getattr(old, name), getattr(new, name)
        if before is None or after is None:
            continue  # a transition rule needs both sides
        if before != after:
            yield from (marker.message for marker in field.metadata if isinstance(marker, Immutable))
        if isinstance(before, BaseModel) and isinstance(after, BaseModel):
            yield from _broken(before, after)


def _first_repeated(values: tuple[Any, ...]) -> Any | None:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def size_rule(limit: int, message: str) -> Cel:
    """Keys of a map are at most `limit` characters long (schemas cannot bound keys)."""

    def short_keys(value: Mapping[str, object]) -> bool:
        return all(len(key) <= limit for key in value)

    return Cel(f"self.all(key, size(key) <= {limit})", message, short_keys)
