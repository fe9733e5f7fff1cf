"""Snakemake's logger plugin `blockcoupling`: what a run shows on the screen, and its journal.

`profiles/default` selects it. Snakemake imports it at every start, hence the late imports.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from logging import ERROR, LogRecord
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

_LISTED = ("rule_name", "wildcards", "output", "reason", "log", "benchmark")


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """Options of the plugin, on Snakemake's command line as `--logger-blockcoupling-NAME`."""

    jobs: bool = field(
        default=False,
        metadata={"help": "List the jobs of a dry run as JSON, a line each, and nothing else."},
    )


class LogHandler(LogHandlerBase):
    """Shows a run on the screen, and notes its jobs in the journal that `status` reads."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = False
    has_formatter = False
    needs_rulegraph = False

    def __post_init__(self) -> None:
        from blockcoupling.study.course import Course
        from blockcoupling.study.journal import Journal
        from blockcoupling.study.screen import Screen

        common = self.common_settings
        stream = sys.stdout if common.stdout else sys.stderr
        quiet = {each.name for each in common.quiet or ()} & {"PROGRESS", "RULES", "ALL"}
        detailed = common.dryrun or common.verbose or common.printshellcmds or common.debug_dag
        self._lists = isinstance(self.settings, LogHandlerSettings) and self.settings.jobs
        self._course = Course()
        self._journal = None if common.dryrun else Journal()
        self._screen = Screen(self._course, stream, own_words=detailed)
        if stream.isatty() and not detailed and not quiet:
            from blockcoupling.study.live_screen import LiveScreen

            self._screen = LiveScreen(self._course, stream, colour=not common.nocolor)

    def handle(self, record: LogRecord) -> Any:
        """Take in a record before Snakemake's filter, which may leave it off the screen."""
        with self._going_on(record):
            self._take_in(record)
        return super().handle(record)

    @contextmanager
    def _going_on(self, record: LogRecord) -> Iterator[None]:
        """Continue if the journal cannot be written (a full disk) or nobody reads it."""
        try:
            yield
        except OSError:
            pass
        except Exception:
            self.handleError(record)

    def _take_in(self, record: LogRecord) -> None:
        from blockcoupling.study.slurm_faults import explained

        event = getattr(record, "event", None)
        if record.msg == "None":  # the queue of loggers makes a text of None
            record.msg = ""
        if event == LogEvent.WORKFLOW_STARTED:
            self._screen.begin()
        if event == LogEvent.JOB_ERROR:
            about = record.__dict__
            about["rule_msg"] = explained(about["rule_msg"] or "", about["log"])
        if event == LogEvent.JOB_INFO and self._lists:
            print(json.dumps({name: record.__dict__[name] for name in _LISTED}))
        self._course.note(record)
        if self._journal is not None:
            self._journal.note(record)

    def emit(self, record: LogRecord) -> None:
        """Show a record."""
        with self._going_on(record):
            if not self._lists:
                self._screen.show(record, self.format(record))
            elif record.levelno >= ERROR:
                print(self.format(record), file=sys.stderr)

    def close(self) -> None:
        """End the screen and the journal."""
        with suppress(OSError):
            self._screen.close()
            if self._journal is not None:
                self._journal.close()
        super().close()
