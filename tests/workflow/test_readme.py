"""The README's loading snippet runs as printed, in a directory where the built-in study was run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    "BLOCKCOUPLING_DEMO" not in os.environ,
    reason="BLOCKCOUPLING_DEMO (a directory where `make demo` was run) is not set",
)
def test_loading_snippet_runs_as_printed() -> None:
    section = (ROOT / "README.md").read_text().split("## Load results")[1]
    (snippet,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[:1]
    done = subprocess.run(
        [sys.executable, "-c", snippet + "\nprint(float(bc.coupling(svd, k=10).mean()))"],
        cwd=os.environ["BLOCKCOUPLING_DEMO"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert -1.5 < float(done.stdout) < 0
