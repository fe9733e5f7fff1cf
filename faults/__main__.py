"""Provoke the faults of machines and clusters, and report what was lost: make faults.

python -m faults                    all faults, an hour on two cores; writes docs/faults.md
python -m faults killed disk        these faults; the page keeps earlier results of the others
python -m faults --instants 4       fewer kills; writes nothing

Some faults need root on Linux: a small disk (tmpfs), a Slurm of two nodes (slurm-wlm and munge).
A fault that cannot be provoked is reported as such.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The tests have the functions that run Snakemake and Slurm on a small study.
sys.path += [str(ROOT / "tests" / folder) for folder in ("workflow", "slurm")]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

from faults import extraction, hub, on_slurm, page, whole_study  # noqa: E402
from faults.fault import NotHere, Outcome  # noqa: E402

INSTANTS = 50
KEPT = Path(__file__).with_name("results.json")
FAULTS: dict[str, Callable[[Path], Iterator[Outcome]]] = {
    "killed": extraction.killed,
    "disk": extraction.disk_full,
    "weights": extraction.damaged_weights,
    "hub": hub.misbehaving,
    "snakemake": whole_study.killed,
    "damage": whole_study.damaged,
    "slurm": on_slurm.on_slurm,
}


def _provoked(name: str, provoked: Iterator[Outcome]) -> tuple[list[Outcome], str]:
    """Print the outcomes of a fault one by one; return them, and why it was not provoked if so."""
    outcomes: list[Outcome] = []
    try:
        for outcome in provoked:
            print(page.table([outcome]).splitlines()[1], flush=True)
            for note in outcome.notes:
                print(f"    {note}", flush=True)
            outcomes.append(outcome)
    except NotHere as reason:
        print(f"{name}: not provoked here: {reason}", flush=True)
        return outcomes, str(reason)
    return outcomes, ""


def main() -> int:
    """Provoke the faults; exit with status 1 if something was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="FAULT", help=", ".join(FAULTS))
    parser.add_argument("--instants", type=int, default=INSTANTS, help="kills of an extraction")
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in FAULTS]:
        parser.error(f"unknown fault: {', '.join(unknown)}; choose from {', '.join(FAULTS)}")
    every: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="blockcoupling-faults-") as scratch:
        os.environ["BLOCKCOUPLING_CACHE"] = str(Path(scratch) / "cache")
        for name in asked.names or FAULTS:
            provoke = FAULTS[name]
            if name == "killed":
                provoke = partial(extraction.killed, instants=asked.instants)
            place = Path(scratch) / name
            place.mkdir()
            outcomes, left_out = _provoked(name, provoke(place))
            every += outcomes
            if asked.instants == INSTANTS:
                page.keep(KEPT, name, outcomes, left_out)
    print(f"\n{page.table(every)}")
    if KEPT.exists():
        kept = json.loads(KEPT.read_text())
        (ROOT / "docs" / "faults.md").write_text(page.page(kept, list(FAULTS)))
    whole = all(each.recovered == each.provoked > 0 and not each.lost for each in every)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
