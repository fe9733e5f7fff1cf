"""Reading a YAML file that a user wrote, and saying what is wrong where it cannot be read."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from blockcoupling.errors import UserError


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


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """The mapping that a file holds.

    Args:
        path: The file.
        what: What it should be, for the message: "configuration".

    Raises:
        UserError: it cannot be read, is not YAML, or holds something else than a mapping.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
    except OSError as error:
        raise UserError(f"cannot read the {what} {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise UserError(f"{path} holds no {what}: it should be a mapping with models: ...")
    return data
