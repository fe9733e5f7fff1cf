"""From settings to the words of a command line; `blockcoupling.cli.options` is the way back."""

import json
from typing import Any

from blockcoupling.config.measurement import Knobs

_SPELT = {"parts": "block_parts"}  # --parts is the directory of a job's finished prompts


def option(name: str) -> str:
    """The option of the command line that gives a setting."""
    return f"--{_SPELT.get(name, name).replace('_', '-')}"


def flags_of(settings: Knobs, kind: type[Knobs] | None = None) -> list[str]:
    """Words that give these settings on the command line: those that are not the default.

    Args:
        settings: Any.
        kind: Class with the options, if `settings` has more than those; default: its own class.

    Returns:
        `["--k", "10", "--vectors", "--tokens", '{"every": 4}']`.
    """
    words = []
    for name, default in (kind or type(settings)).defaults().items():
        value = getattr(settings, name)
        if value == default:
            continue
        if isinstance(value, bool):
            words.append(option(name) if value else f"--no-{option(name)[2:]}")
        else:
            words += [option(name), as_word(value)]
    return words


def as_word(value: Any) -> str:
    """A value as one word: lists and mappings in JSON, everything else as it is."""
    return json.dumps(value) if isinstance(value, list | tuple | dict) else str(value)
