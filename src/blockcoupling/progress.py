"""Progress of long work: a bar on a terminal, plain lines in a log."""

import os
import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm


class Progress:
    """Counts finished pieces of work.

    With a terminal on stderr it draws a bar; otherwise it prints a line at most every tenth of the
    way, so that a log stays readable.

        with Progress(3, "training", "step") as progress:
            for step in range(3):
                progress.advance(f"loss {1 / (step + 1):.2f}")
    """

    def __init__(
        self, total: int, what: str, unit: str = "prompt", done: int = 0, shown: bool = True
    ) -> None:
        self._total, self._what, self._unit, self._done = total, what, unit, done
        self._shown, self._terminal = shown, shown and sys.stderr.isatty()
        self._bar = tqdm(
            total=total, initial=done, desc=what, unit=unit, disable=not self._terminal
        )

    def advance(self, note: str = "") -> None:
        """Count one finished piece; `note` is shown after the count."""
        self._done += 1
        if self._terminal:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update()
        elif self._shown and self._done * 10 // self._total > (self._done - 1) * 10 // self._total:
            place = f"{self._what}: {self._unit} {self._done} of {self._total}"
            print(f"{place}, {note}" if note else place, file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()


def plain_libraries() -> None:
    """Keep the bars of transformers and huggingface_hub out of logs; leave them on a terminal."""
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        from transformers.utils import logging

        logging.disable_progress_bar()
