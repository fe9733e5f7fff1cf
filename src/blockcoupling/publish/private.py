"""What a published study must not say: paths and names of the machine that it was made on."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from blockcoupling.errors import UserError

_PATH = re.compile(r"""(?:^|(?<=["'=:\s(\[,]))(?:~|file://)?/?(?:[\w.@+%-]+/)+[\w.@+%-]+""")
"""A path of at least two parts; `absolute` leaves out those that are relative."""


def absolute_paths(value: Any) -> set[str]:
    """Return the absolute paths in texts, also in those within lists and mappings."""
    if isinstance(value, str):
        found = (match[0].removeprefix("file://") for match in _PATH.finditer(value))
        return {each for each in found if each.startswith(("/", "~/"))}
    if isinstance(value, Mapping):
        value = value.values()
    if isinstance(value, Iterable):
        return set().union(*map(absolute_paths, value))
    return set()


class Private:
    """Texts of this machine, each with what is published in its place.

    Args:
        paths: absolute paths; the last part of each is published.
        directories: where the studies are.
    """

    def __init__(self, paths: Iterable[str], directories: Iterable[str]) -> None:
        parts = {path: Path(path).name for path in paths}
        own = {str(Path.home()), str(Path.cwd()), *directories} - {"/"}
        self._instead = parts | dict.fromkeys(own, ".")
        # The longest first: one may begin with another.
        longest = sorted(self._instead, key=len, reverse=True)
        self._found = re.compile("|".join(map(re.escape, longest)) or r"(?!)")
        host = socket.gethostname()
        words = [host] if len(host) > 3 and host != "localhost" else []
        self._host = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in words) or r"(?!)")

    def clean(self, text: str) -> str:
        """Return a text without them."""
        return self._found.sub(lambda found: self._instead[found[0]], text)

    def cleaned(self, value: Any) -> Any:
        """Return a plain value (of JSON) without them."""
        return json.loads(self.clean(json.dumps(value, ensure_ascii=False)))

    def demand_none(self, text: str, where: str) -> None:
        """Refuse to publish a text that still holds one.

        Raises:
            UserError: naming the file and what it says.
        """
        found = self._found.search(text) or self._host.search(text)
        if found is not None:
            raise UserError(
                f"{where} would tell {found[0]!r}, which is of this machine: nothing was published"
            )
