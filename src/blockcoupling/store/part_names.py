"""Names of a job's parts as file names; light, as a check of prompts asks for them too."""

from pathlib import Path
from urllib.parse import quote

from blockcoupling.errors import UserError

_LONGEST_NAME = 200  # file systems allow 255 bytes; the rest is for prefix and suffix


def part_path(parts_dir: Path | str, name: str) -> Path:
    """Return where a part lies; any name, a prompt's id say, makes a file name.

    Raises:
        UserError: it is too long for one.
    """
    if (problem := name_problem(name)) is not None:
        raise UserError(problem)
    return Path(parts_dir) / f"{quote(name, safe=' ')}.zarr"


def name_problem(name: str) -> str | None:
    """What is wrong with the name of a part; None: nothing."""
    if (length := len(quote(name, safe=" "))) <= _LONGEST_NAME:
        return None
    return (
        f"the prompt id {name[:40] + '…'!r} is too long for a file name ({length} bytes, at most "
        f"{_LONGEST_NAME}; what is not plain letters counts three to twelve): shorten it"
    )
