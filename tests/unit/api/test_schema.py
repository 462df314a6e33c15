"""What the generator writes is a structural schema; what it cannot express it refuses, with the path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from isotrack_api.definitions import DEFINITIONS, Definition
from isotrack_api.markers import Cel, Immutable, ListMap, ListSet, RuledModel
from isotrack_api.schema import SchemaError, structural_schema

ALLOWED = {
    "description", "type", "format", "properties", "required", "additionalProperties", "items", "enum", "pattern",
    "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "minProperties", "maxProperties", "anyOf",
    "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-int-or-string",
}  # fmt: skip


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node of a schema with its path."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


def own_nodes(definition: Definition) -> Iterator[tuple[str, dict[str, Any]]]:
    """Nodes below spec and status; the rest belongs to the API server."""
    for part in ("spec", "status"):
        yield from nodes(definition.schema()["properties"][part], part)


each_kind = pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda definition: definition.kind)


@each_kind
def test_every_node_is_structural_and_bounded(definition: Definition) -> None:
    for path, node in own_nodes(definition):
        assert node.keys() <= ALLOWED, path
        if node.get("x-kubernetes-int-or-string"):
            assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}], path
            continue
        match node["type"]:
            case "string":
                assert "enum" in node or node["maxLength"] > 0, path
            case "integer":
                assert node["minimum"] <= node["maximum"], path
            case "array":
                assert node["maxItems"] > 0, path
                assert node["x-kubernetes-list-type"] in ("atomic", "set", "map"), path
            case "object":
                assert "properties" in node or node["maxProperties"] > 0, path
            case other:
                assert other == "boolean", path


@each_kind
def test_every_field_is_described(definition: Definition) -> None:
    for path, node in own_nodes(definition):
        for name, field in node.get("properties", {}).items():
            assert field.get("description"), f"{path}.{name}"


@each_kind
def test_every_rule_says_what_to_do_in_one_line(definition: Definition) -> None:
    for path, node in own_nodes(definition):
        for rule in node.get("x-kubernetes-validations", ()):
            assert 10 < len(rule["message"]) < 400, path
            assert "\n" not in rule["message"], path


@each_kind
def test_no_default_reaches_the_schema(definition: Definition) -> None:
    """Absent means "the class decides", and a defaulted field shows up as drift in GitOps tools."""
    assert all("default" not in node for _, node in own_nodes(definition))


@each_kind
def test_crd_is_small_enough_for_client_side_apply(definition: Definition) -> None:
    """`kubectl apply` keeps the whole object in an annotation, of which Kubernetes allows 256 KiB."""
    assert len(str(definition.to_object())) < 128 * 1024


@each_kind
def test_columns_and_selectable_fields_exist_in_the_schema(definition: Definition) -> None:
    known = {f".{path}" for path, _ in own_nodes(definition)}
    plain = [
        column.path for column in definition.columns if "[?(" not in column.path and ".metadata." not in column.path
    ]
    assert {*plain, *definition.selectable} <= known


def model(annotation: Any, default: Any = ...) -> type[BaseModel]:
    """A model with one field."""
    return type(
        "Sample",
        (BaseModel,),
        {"__annotations__": {"field": annotation}} | ({} if default is ... else {"field": default}),
    )


class Inner(BaseModel):
    """An object."""

    name: Annotated[str, Field(max_length=5)] = ""


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        pytest.param(str, "a string needs maxLength", id="endless text"),
        pytest.param(int, "an integer needs minimum and maximum", id="endless number"),
        pytest.param(float, "type 'number' has no structural form", id="float"),
        pytest.param(tuple[bool, ...], "a list needs maxItems", id="endless list"),
        pytest.param(dict[str, bool], "a map needs maxProperties", id="endless map"),
        pytest.param(bool | Inner, "a union has no structural form", id="union"),
        pytest.param(Any, "type None has no structural form", id="anything"),
        pytest.param(Annotated[int, Field(gt=0, lt=5)], "cannot express exclusive", id="exclusive bounds"),
        pytest.param(Annotated[str, Field(max_length=5, pattern=r"^\d+$")], "different things to RE2", id="pattern of Unicode digits"),
        pytest.param(
            Annotated[tuple[Inner, ...], Field(max_length=5), ListMap("name")], "key name of the list must be required", id="optional key"
        ),
        pytest.param(Annotated[tuple[Inner, ...], Field(max_length=5), ListSet()], "a set holds scalars only", id="set of objects"),
    ],
)  # fmt: skip
def test_what_cannot_be_expressed_is_refused_with_its_path(annotation: Any, problem: str) -> None:
    with pytest.raises(SchemaError, match=problem) as refused:
        structural_schema(model(annotation))
    assert refused.value.path.startswith("Sample.field")


def test_optional_field_loses_its_null() -> None:
    schema = structural_schema(model(Annotated[str, Field(max_length=5)] | None, None))
    assert schema["properties"]["field"] == {"type": "string", "maxLength": 5}
    assert "required" not in schema


def test_constant_becomes_an_enum() -> None:
    assert structural_schema(model(Literal["a"]))["properties"]["field"] == {"type": "string", "enum": ["a"]}


def test_default_and_mutability_go_into_the_description() -> None:
    class Sample(BaseModel):
        """One."""

        size: Annotated[
            int, Field(ge=0, le=9, description="How big."), Immutable("size cannot change: make another one")
        ] = 3

    field = structural_schema(Sample)["properties"]["size"]
    assert field["description"] == "How big. Default: 3. Immutable."
    assert field["x-kubernetes-validations"] == [
        {"rule": "self == oldSelf", "message": "size cannot change: make another one"}
    ]


def test_rules_of_a_field_and_of_its_model_are_both_kept() -> None:
    class Pair(RuledModel):
        """Two."""

        cel_rules = (Cel("has(self.a)", "set a", lambda pair: pair.a is not None),)
        a: bool | None = None

    outer = model(Annotated[Pair, Cel("true", "never fails", lambda _: True)])
    rules = structural_schema(outer)["properties"]["field"]["x-kubernetes-validations"]
    assert [rule["message"] for rule in rules] == ["set a", "never fails"]
