"""What came of the faults: a table on the screen, and the page docs/faults.md."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from faults.fault import Outcome

LIBRARIES = ("blockcoupling", "snakemake", "zarr", "xarray", "torch", "huggingface_hub")
HEAD = ("fault", "provoked", "recovered", "numbers lost")


def table(outcomes: Sequence[Outcome]) -> str:
    """A line for each fault, for a terminal."""
    rows = [HEAD, *((each.fault, *_counts(each)) for each in outcomes)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(w.rjust(n) for w, n in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    )


def _counts(outcome: Outcome) -> tuple[str, str, str]:
    return str(outcome.provoked), str(outcome.recovered), str(outcome.lost)


def keep(file: Path, name: str, outcomes: Sequence[Outcome], left_out: str = "") -> None:
    """Put what came of one fault in place of what came of it before, with the date."""
    kept = json.loads(file.read_text()) if file.exists() else {}
    kept[name] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "outcomes": [asdict(each) for each in outcomes],
        "left_out": left_out,
    }
    file.write_text(json.dumps(kept, indent=1) + "\n")


def page(kept: dict[str, Any], order: Sequence[str]) -> str:
    """docs/faults.md.

    Args:
        kept: by the name of a fault, as `keep` has it.
        order: of the faults.
    """
    found = [(kept[name]["date"], name) for name in order if name in kept]
    rows = [
        f"| {each.fault} | {' | '.join(_counts(each))} | {date} | {each.seen} |"
        for date, name in found
        for each in (Outcome(**one) for one in kept[name]["outcomes"])
    ]
    lines = [
        "# Faults",
        "",
        "`make faults` wrote this page. Each fault is provoked for real, on studies of seconds;",
        "then one goes on as the last column says, and every file of the results is held against",
        "those of a run without the fault, byte by byte. A number is lost where it differs, or is",
        "not there.",
        "",
        "| fault | times provoked | recovered | numbers lost | date | what one sees, and types |",
        "|---|--:|--:|--:|---|---|",
        *rows,
        "",
        f"{', '.join(f'{name} {version(name)}' for name in LIBRARIES)}; Python "
        f"{platform.python_version()}, {platform.system()} {platform.machine()}.",
    ]
    left_out = [
        f"- {name}: {kept[name]['left_out']}" for _, name in found if kept[name]["left_out"]
    ]
    if left_out:
        lines += ["", "Not provoked there:", "", *left_out]
    return "\n".join(
        [*lines, "", "What each looks like on a cluster: [cluster.md](cluster.md).", ""]
    )
