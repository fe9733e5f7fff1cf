"""What of a study can go, and that nothing else goes."""

from pathlib import Path

import pytest

from blockcoupling.config.steps import steps
from blockcoupling.config.study import Study
from blockcoupling.errors import UserError
from blockcoupling.study import clean
from blockcoupling.study.running import Now

TRAINED = {"train": {"hidden_size": 32, "blocks": 2, "steps": 8}, "checkpoints": [0, 8]}


def write(path: Path, text: str = "x" * 5000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A finished study of two models, with parts, states and logs."""
    monkeypatch.chdir(tmp_path)
    models = {"small": TRAINED, "other": {**TRAINED, "checkpoints": [8]}}
    datasets = {"words": {"name": "handwritten"}}
    study = Study(models=models, datasets=datasets, results=Path("results/s"))
    for row in steps():
        for job in row.wildcards(study):
            for file in row.outputs:
                write(study.results / file.format(**job))
            if row.parts is not None:
                parts = study.results / row.parts.format(**job)
                write(parts / "plan.json")
                write(parts / "joined.json")
                write(parts / "one.part")
    write(Path(".snakemake/log/run.log"))
    write(Path(".snakemake/metadata/notes"))
    write(study.results / "parts/removed/main/words/one.part")
    return study


def files() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()}


def test_parts_states_and_logs_of_a_finished_study_go(study):
    before = files()
    clean.free(clean.spare(study))
    kept = {
        str(study.results / file.format(**job))
        for row in steps()
        for job in row.wildcards(study)
        for file in row.outputs
    }
    for row in (each for each in steps() if each.parts is not None):
        for job in row.wildcards(study):  # with these, more prompts can be added to the store
            for name in ("plan.json", "joined.json"):
                kept.add(str(study.results / row.parts.format(**job) / name))
    assert files() == kept | {".snakemake/metadata/notes"}
    assert len(before) > len(files())
    assert clean.spare(study) == []


def test_what_an_unfinished_job_resumes_from_stays(study):
    # One checkpoint is not written yet, and one store is not joined: both of the same model.
    store = study.results / "svd/small/step8/words/svd.zarr/zarr.json"
    store.unlink()
    going = {str(path) for each in clean.spare(study) for path in each.paths}
    assert not [path for path in going if "parts/small/step8" in path or "training/small" in path]
    assert str(study.results / "parts/small/step0/words/one.part") in going
    assert str(study.results / "training/other/one.part") in going
    assert str(study.results / "training/other/trained.json") not in going


def test_bytes_are_those_on_disk(study):
    (spare, _) = clean.spare(study)
    counted = sum(
        512 * file.stat().st_blocks
        for path in spare.paths
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.is_file()
    )
    assert spare.bytes == counted > 0
    said = clean.as_text(study, [spare], Path("s.yaml"), freed=False)
    assert "blockcoupling clean s.yaml --yes" in said
    assert clean.as_text(study, [], Path("s.yaml"), freed=False).endswith("nothing to free")


def test_nothing_goes_while_snakemake_runs(study, monkeypatch):
    monkeypatch.setattr(clean, "now", type("Running", (Now,), {"processes": [1]}))
    before = files()
    with pytest.raises(UserError, match="Snakemake is running"):
        clean.free(clean.spare(study))
    assert files() == before
