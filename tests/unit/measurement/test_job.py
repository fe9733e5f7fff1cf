"""A job of any kind: what is finished is not done again, and what was decided holds."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from blockcoupling.errors import MeasurementError
from blockcoupling.measurement.job import Job, read_plan, write_plan
from blockcoupling.store.part import open_part, write_part
from blockcoupling.store.part_names import part_path

NAMES = ("a", "b", "c/d", "e", "f")


class Squares:
    """The simplest kind of job: of each name, its place squared."""

    def __init__(self, root: Path, mark: str = "x", batch: int = 2) -> None:
        self.measured: list[str] = []
        self.expected = dict.fromkeys(NAMES, mark)
        self.out, self.parts = root / "out.json", root / "parts"
        self.batch = batch

    def measure(self, names: Sequence[str], advance: Callable) -> list[xr.Dataset]:
        self.measured += names
        for _ in names:
            advance()
        return [xr.Dataset({"y": ("x", [NAMES.index(name) ** 2.0])}) for name in names]

    def run(self, measure=None) -> None:
        self.measured.clear()
        job = Job("m at c", self.parts, self.expected, self.batch)
        with job.progress("squaring", "step") as progress:
            for names in job.batches():
                for name, ds, mark in job.new(
                    names, (measure or self.measure)(names, progress.advance)
                ):
                    write_part(self.parts, name, ds, mark)
        parts = [open_part(part_path(self.parts, name)) for name in self.expected]
        self.out.write_text(json.dumps([part.read("y").item() for part in parts]))


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    job = Squares(tmp_path)
    job.run()
    assert job.measured == list(NAMES)
    job.run()
    assert job.measured == []
    assert json.loads(job.out.read_text()) == [0, 1, 4, 9, 16]


def test_parts_are_measured_in_the_company_they_always_had(tmp_path: Path) -> None:
    """Batches keep their composition, so that a rerun does the same arithmetic."""
    job = Squares(tmp_path)
    job.run()
    part_path(job.parts, "e").unlink()
    job.run()
    assert job.measured == ["c/d", "e"]


def test_another_fingerprint_measures_again(tmp_path: Path) -> None:
    Squares(tmp_path).run()
    other = Squares(tmp_path, mark="y")
    other.run()
    assert other.measured == list(NAMES)


def test_progress_counts_the_steps_of_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Squares(tmp_path, batch=1)
    job.run()
    assert "squaring: step 5 of 5" in capsys.readouterr().err
    part_path(job.parts, "a").unlink()
    job.run()
    assert capsys.readouterr().err == "squaring: step 5 of 5\n"


def test_an_error_names_the_model(tmp_path: Path) -> None:
    def measure(names: Sequence[str], advance: Callable) -> list[xr.Dataset]:
        raise MeasurementError("prompt 'a': it is not finite")

    job = Squares(tmp_path)
    with pytest.raises(MeasurementError, match="model m at c, prompt 'a': it is not finite"):
        job.run(measure)
    assert not job.out.exists()


def test_nothing_but_what_was_asked_for_is_joined(tmp_path: Path) -> None:
    job = Squares(tmp_path)
    job.run()
    job.expected = {"f": "x", "a": "x"}
    job.run()
    assert job.measured == []
    assert json.loads(job.out.read_text()) == [16, 0]


def test_a_plan_holds_for_its_job_alone(tmp_path: Path) -> None:
    path = tmp_path / "parts" / "plan.json"
    assert read_plan(path, "one") == {}
    write_plan(path, "one", batch=3)
    assert read_plan(path, "one") == {"batch": 3}
    assert read_plan(path, "another") == {}


def test_parts_keep_their_numbers(tmp_path: Path) -> None:
    values = np.array([1.5, np.nan, -0.0])
    write_part(tmp_path, "a b/c", xr.Dataset({"y": ("x", values)}), "x")
    part = open_part(part_path(tmp_path, "a b/c")).dataset()
    np.testing.assert_array_equal(part["y"], values)
    assert part.attrs == {}
