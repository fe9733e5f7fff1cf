"""The outcomes of the faults as a table on the screen and as the page docs/faults.md."""

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
    """A table for a terminal, one line per fault."""
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
    """Replace the kept outcomes of one fault, with today's date."""
    kept = json.loads(file.read_text()) if file.exists() else {}
    kept[name] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "outcomes": [asdict(each) for each in outcomes],
        "left_out": left_out,
    }
    file.write_text(json.dumps(kept, indent=1) + "\n")


def page(kept: dict[str, Any], order: Sequence[str]) -> str:
    """The text of docs/faults.md.

    Args:
        kept: What `keep` has written, by the name of the fault.
        order: The order of the faults.
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
        "`make faults` writes this page. It provokes each fault for real, on a small study, and",
        "recovers as the last column says. Then it compares every file of the results with a run",
        "without the fault, byte by byte. A number that differs or is missing counts as lost.",
        "",
        "| fault | times provoked | recovered | numbers lost | date | what you see and do |",
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
        lines += ["", "Not provoked on that machine:", "", *left_out]
    return "\n".join(
        [*lines, "", "Messages and remedies on a cluster: [cluster.md](cluster.md).", ""]
    )
