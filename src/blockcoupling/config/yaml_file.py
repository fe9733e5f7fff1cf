"""Reading a YAML file that a user wrote, and saying what is wrong where it cannot be read.

YAML takes a revision such as `0001000` for a number (512, in octal), `on` for a truth and
`2024-01-01` for a date. Only the field that reads it knows what was meant: such a word is kept as
it is written, together with the value that YAML gives it.
"""

import re
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from blockcoupling.config.tokens import without_tokens
from blockcoupling.errors import UserError


class Written(str):
    """A word as it is written in a file.

    Attributes:
        value: The number, truth or date that YAML takes it for.
    """

    __slots__ = ("value",)
    value: Any

    def __new__(cls, text: str, value: Any) -> Self:
        """Keep both."""
        word = super().__new__(cls, text)
        word.value = value
        return word


def meant(data: Any) -> Any:
    """The data with the values of its words, as YAML has them; keys are text."""
    return _with_words(data, lambda word: word.value)


def as_text(data: Any) -> Any:
    """The data with its words as they are written; keys are text."""
    return _with_words(data, str)


def _with_words(data: Any, read: Callable[[Written], Any]) -> Any:
    match data:
        case Written():
            return read(data)
        case Mapping():
            return {_with_words(key, str): _with_words(each, read) for key, each in data.items()}
        case list():
            return [_with_words(each, read) for each in data]
    return data


def as_written(data: Any, written: Any) -> Any:
    """Data that somebody else has read from a file, with the words that the file has for them.

    Args:
        data: Numbers, truths and dates in place of words.
        written: What `read_yaml` makes of the same file; where the two differ, `data` is right.
    """
    match data, written:
        case Mapping(), Mapping():
            words = {key.value if isinstance(key, Written) else key: key for key in written}
            return {
                words.get(key, key): as_written(value, written.get(words.get(key, key)))
                for key, value in data.items()
            }
        case list(), list() if len(data) == len(written):
            return [as_written(a, b) for a, b in zip(data, written, strict=True)]
        case _, Written() if data == str(written):
            return written
        case _, Written() if type(data) is type(written.value) and data == written.value:
            return written
    return data


class _Loader(yaml.SafeLoader):
    """A YAML loader that refuses a key given twice, where PyYAML keeps the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_word(self, node: yaml.ScalarNode) -> Written:
        value = yaml.SafeLoader.yaml_constructors[node.tag](self, node)
        return Written(node.value, value)


for _kind in ("int", "float", "bool", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_word)
# YAML 1.1, which PyYAML reads, does not take 7e9 without a point for a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path, what: str, key: str = "models") -> dict[str, Any]:
    """The mapping that a file holds; what is not plainly text comes as it is `Written`.

    Args:
        path: The file.
        what: What it should be, for the message: "configuration".
        key: A key that it should have, for the message.

    Raises:
        UserError: it cannot be read, is not YAML, or holds something else than a mapping.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Loader)  # a SafeLoader
    except OSError as error:
        raise UserError(f"cannot read the {what} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {without_tokens(str(error))}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} holds no {what}: it should be a mapping with {key}: ...")
    return data
