"""Keeps the hub's token, and passwords in addresses, out of everything that the program prints.

What a verb prints becomes the log of a job: messages of libraries, warnings and tracebacks too.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from blockcoupling.config.tokens import HIDDEN, without_tokens

_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_ADDRESSES = ("HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_SHORTEST = 6
"""Characters of the shortest secret; hiding shorter ones would remove words from sentences."""


def known_secrets() -> list[str]:
    """The hub's token, from the environment or where `hf auth login` keeps it, and passwords."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    found = [os.environ.get(name, "") for name in _TOKENS]
    with suppress(OSError, UnicodeDecodeError):  # nobody has logged in here
        found.append(Path(os.environ.get("HF_TOKEN_PATH", home / "token")).read_text().strip())
    for name in _ADDRESSES:
        for variable in (name, name.lower()):
            password = urlsplit(os.environ.get(variable, "")).password or ""
            found += [password, unquote(password)]
    return sorted({secret for secret in found if len(secret) >= _SHORTEST}, key=len, reverse=True)


def without_secrets(text: str, secrets: list[str] | None = None) -> str:
    """A text with every secret in it hidden: those given, or those that are known, and tokens."""
    for secret in known_secrets() if secrets is None else secrets:
        text = text.replace(secret, HIDDEN)
    return without_tokens(text)


class Discreet:
    """A stream that writes everything but the secrets.

    Args:
        stream: where it is written.
        secrets: what is not.
    """

    def __init__(self, stream: Any, secrets: list[str]) -> None:
        self._stream, self._secrets = stream, secrets

    def write(self, text: str) -> int:
        """Write a text; returns the number of its characters, as the stream's users expect."""
        self._stream.write(without_secrets(text, self._secrets))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def hide_secrets() -> None:
    """From now on, secrets that are known, and tokens, do not reach the screen or a log."""
    secrets = known_secrets()
    sys.stdout = Discreet(sys.stdout, secrets)
    sys.stderr = Discreet(sys.stderr, secrets)
