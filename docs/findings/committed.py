"""The tables in this folder that come from a finished sweep, from its catalog.

python -m docs.findings.committed results/sweep/catalog/statistics.yml
"""

from __future__ import annotations

import sys
from pathlib import Path

import blockcoupling as bc

HERE = Path(__file__).parent
POINT = ["model", "checkpoint", "k"]


def main(catalog: str) -> None:
    """Write sweep_predictors.csv, sweep_coupling.csv and sweep_locality.csv."""
    study = bc.open_catalog(catalog)
    coupling, locality = (study.search(kind=kind).frame() for kind in ("coupling", "locality"))
    values = ["coupling", "adjacent", "chance", "excess"]
    tables = {
        "predictors": study.search(kind="predictors").frame(),
        "coupling": coupling.groupby(POINT, as_index=False)[values].mean(),
        "locality": locality.groupby([*POINT, "distance"], as_index=False)[["miscoupling"]].mean(),
    }
    for name, table in tables.items():
        table.to_csv(HERE / f"sweep_{name}.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main(sys.argv[1])
