"""File names of a job's parts; without heavy imports, because the check of prompts needs them."""

from pathlib import Path
from urllib.parse import quote

from blockcoupling.errors import UserError

SUFFIX = ".part"
PLAN, NOTE = "plan.json", "joined.json"
"""Files next to the parts that a job needs when it is run again."""
_LONGEST_NAME = 200  # file systems allow 255 bytes; the rest is for prefix and suffix


def part_path(parts_dir: Path | str, name: str) -> Path:
    """Return the path of a part; any name, such as a prompt's id, gives a valid file name.

    Raises:
        UserError: the name is too long.
    """
    if (problem := name_problem(name)) is not None:
        raise UserError(problem)
    return Path(parts_dir) / f"{quote(name, safe=' ')}{SUFFIX}"


def part_files(parts_dir: Path | str) -> list[Path]:
    """Return the parts in a directory; unfinished ones are not among them."""
    return [file for file in Path(parts_dir).glob(f"*{SUFFIX}") if not file.name.startswith(".")]


def name_problem(name: str) -> str | None:
    """Return what is wrong with the name of a part, or None."""
    if (length := len(quote(name, safe=" "))) <= _LONGEST_NAME:
        return None
    return (
        f"the prompt id {name[:40] + '…'!r} is too long for a file name ({length} bytes, at most "
        f"{_LONGEST_NAME}; characters other than plain letters count three to twelve): shorten it"
    )
