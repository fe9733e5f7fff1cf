"""The README's examples run as printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import Workplace

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.workflow
def test_the_study_of_ones_own_runs_as_printed(tmp_path: Path) -> None:
    (study,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert len(study.splitlines()) <= 10
    (tmp_path / "study.yaml").write_text(study)
    run = Workplace(tmp_path).snakemake()
    assert run.status == 0, run.said
    assert (tmp_path / "results" / "mine" / "report.html").is_file()


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) < 90


@pytest.mark.skipif(
    "BLOCKCOUPLING_DEMO" not in os.environ,
    reason="BLOCKCOUPLING_DEMO (a directory where `make demo` was run) is not set",
)
def test_loading_snippet_runs_as_printed() -> None:
    section = README.split("## Load results")[1]
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
