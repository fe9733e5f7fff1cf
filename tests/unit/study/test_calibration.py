"""`blockcoupling calibrate` on small sizes: every rate is measured, and the file is used."""

import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from blockcoupling import cli
from blockcoupling.config.section import Unit
from blockcoupling.errors import UserError
from blockcoupling.study import calibration
from blockcoupling.study.rates import Processor, read_rates


@pytest.mark.slow
def test_all_rates_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in (("WIDTH", 64), ("FILE_BYTES", 2**20), ("STORE_BYTES", 2**16)):
        monkeypatch.setattr(calibration, name, small)
    monkeypatch.setattr(calibration, "TORCH", "json")
    monkeypatch.setattr(calibration, "TABLES", "json")
    out = tmp_path / "deep" / "rates.yaml"
    ran = CliRunner().invoke(cli.app, ["calibrate", "--out", str(out), "--device", "cpu"])
    assert ran.exit_code == 0, ran.output
    found = read_rates(out).processor
    measured = [
        name
        for name, field in Processor.model_fields.items()
        if any(isinstance(each, Unit) for each in field.metadata)
    ]
    assert set(measured) < found.model_fields_set
    assert all(f"  {name}: " in ran.output for name in measured)
    assert found.host == os.uname().nodename
    assert found.cores == len(os.sched_getaffinity(0))
    assert [file.name for file in out.parent.iterdir()] == ["rates.yaml"]  # nothing else is left


def test_the_fastest_repeat_counts() -> None:
    waits = iter([0.2, 0.03, 0.02, 0.04])
    seconds = calibration._least(lambda: time.sleep(next(waits)), time.perf_counter, 3)
    assert 0.02 <= seconds < 0.03  # a sleep is at least as long as asked for


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--device tpu: torch sees no such GPU"):
        calibration.calibrated(tmp_path, "tpu")
