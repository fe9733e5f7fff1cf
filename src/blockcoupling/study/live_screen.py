"""What a run of Snakemake shows on a terminal: one line that is kept up to date."""

from __future__ import annotations

import logging
from logging import LogRecord
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from snakemake_interface_logger_plugins.common import LogEvent

from blockcoupling.study.course import Course
from blockcoupling.study.screen import Screen, progress

_BAR = 24
"""Columns of the bar."""


class LiveScreen(Screen):
    """Keeps one line up to date, below what must be read: warnings, failures, the end.

    Args:
        course: The run's course, up to date whenever a record is shown.
        stream: A terminal.
        colour: Whether it may be coloured.
    """

    def __init__(self, course: Course, stream: TextIO, colour: bool = True) -> None:
        super().__init__(course, stream)
        self._console = Console(file=stream, no_color=not colour, highlight=False)
        self._live = Live(
            console=self._console,
            get_renderable=self._line,
            refresh_per_second=2,
            transient=True,
        )
        self._held: list[str] = []

    def begin(self) -> None:
        """Show that Snakemake plans the jobs of a run."""
        self._live.start(refresh=True)

    def show(self, record: LogRecord, text: str) -> None:
        """Show what matters of one record; the rest is in Snakemake's log file."""
        course, event = self._course, getattr(record, "event", None)
        ended = course.done > 0 and course.done >= course.total
        if event == LogEvent.PROGRESS and course.done == course.total:
            self._live.stop()
        elif record.levelno > logging.INFO or (event is None and ended):
            super().show(record, text)
        elif event is None and not course.total:
            self._held.append(text)

    def write(self, text: str, style: str = "") -> None:
        """Write a text above the line."""
        if text.strip():
            self._console.print(Text(text, style), soft_wrap=True)

    def close(self) -> None:
        """Take the line away, and say what is left to do."""
        self._live.stop()
        if not self._course.total:  # nothing had to be run: what was said is the answer
            self.write("\n".join(self._held))
        self._held.clear()
        super().close()

    def _line(self) -> RenderableType:
        course = self._course
        if not course.total:
            return Text("Planning the jobs")
        running = list(course.running.values())
        more = f" (and {len(running) - 1} more)" if len(running) > 1 else ""
        what = f" · {running[-1].what}{more}" if running else ""
        line = Table.grid(padding=(0, 1))
        line.add_column()
        line.add_column(no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(total=course.total, completed=course.done, width=_BAR)
        line.add_row(bar, Text(f"{progress(course)}{what}"))
        return line
