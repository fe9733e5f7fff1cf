"""Show the state of a study once, or keep it up to date while Snakemake runs."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from blockcoupling.config.study import Study
from blockcoupling.study.planned import Planned, planned
from blockcoupling.study.running import now
from blockcoupling.study.status import Status, as_json, notes, status
from blockcoupling.study.status_page import page

_EVERY = 2.0
"""Seconds between two looks at what runs."""
_PLAN_SHARE = 10
"""A plan is used for this many times as long as Snakemake took to make it."""
_WIDTH = 140
"""Columns without a terminal."""


class _Watch:
    """Looks at a study; asks Snakemake for a plan only now and then, because that takes a while."""

    def __init__(self, study: Study, config: Path, snakefile: Path | None) -> None:
        self._study, self._config, self._snakefile = study, config, snakefile
        self._jobs: list[Planned] = []
        self._notes: list[str] = []
        self._planned_at, self._until = 0.0, 0.0

    def look(self) -> Status:
        running = now()
        if time.time() >= self._until:
            began = time.time()
            self._jobs = planned(self._config, self._snakefile)
            self._notes = notes(self._study)
            self._planned_at = began
            self._until = time.time() + _PLAN_SHARE * (time.time() - began)
        return status(self._study, self._jobs, self._planned_at, running, self._notes)


def as_document(study: Study, config: Path, snakefile: Path | None = None) -> dict[str, Any]:
    """The state of a study as plain JSON (see `status.as_json`).

    Raises:
        UserError: No workflow found here, or Snakemake cannot load it.
    """
    return as_json(_Watch(study, config, snakefile).look())


def show(study: Study, config: Path, snakefile: Path | None = None) -> None:
    """Print the state of a study; on a terminal, keep it up to date for as long as Snakemake runs.

    Raises:
        UserError: No workflow found here, or Snakemake cannot load it.
    """
    watch, console = _Watch(study, config, snakefile), Console()
    if not console.is_terminal:
        Console(width=_WIDTH).print(page(watch.look()))
        return
    found = watch.look()
    with suppress(KeyboardInterrupt), Live(page(found), console=console) as live:
        while found.now.alive:
            time.sleep(_EVERY)
            found = watch.look()
            live.update(page(found))
