"""The reference of keys: each has a unit if it is a number, and an example that is right."""

from typing import Any

import pytest
import yaml
from docs import generated_pages as pages
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from blockcoupling.config.section import _kinds


def keys() -> list[tuple[type[BaseModel], str, FieldInfo]]:
    """All keys that are no sections themselves, each once."""
    return [
        (section, name, field)
        for _, section in pages.sections()
        for name, field in section.model_fields.items()
        if not pages.sections_of(field.annotation, field.metadata)
    ]


def test_numbers_have_units() -> None:
    assert not [
        f"{section.__name__}.{name}"
        for section, name, field in keys()
        if {int, float} & _kinds(field.annotation)
        and not pages.unit_of(field)
        and name not in ("seed", "init_seed")
    ]


@pytest.mark.parametrize(
    ("section", "name", "field"), keys(), ids=lambda each: getattr(each, "__name__", str(each)[:20])
)
def test_examples_are_values_of_their_keys(
    section: type[BaseModel], name: str, field: FieldInfo
) -> None:
    example: Any = yaml.safe_load("{" + pages.example_of(section, name).strip("`") + "}")
    value = section.as_meant(example)[name]  # type: ignore[attr-defined]
    TypeAdapter(field.annotation).validate_python(value)


def test_every_key_is_described() -> None:
    for section, name, field in keys():
        assert field.description or pages.docstrings(section).get(name), f"{section}.{name}"
