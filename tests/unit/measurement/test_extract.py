"""A job measures every prompt once, ends with the numbers of `measure`, and can be killed."""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file, save_file
from tiny_model import save_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import blockcoupling as bc
from blockcoupling.config.measurement import Settings
from blockcoupling.config.overlaps import OVERLAPS
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.jacobian.operator import Operator
from blockcoupling.measurement import extract as module
from blockcoupling.measurement.extract import extract
from blockcoupling.measurement.prepare import Prepared
from blockcoupling.sources.models import model_record
from blockcoupling.sources.records import spec_from_argument
from blockcoupling.store import joining, schema
from blockcoupling.store.part_names import part_path

TEXTS = {"a": "one prompt", "b": "x", "c/d": "and a longer one", "e": "two words", "f": "last"}
SETTINGS = Settings(k=4, tokens=[-1, 0])
BATCH = 2


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny", hidden_size=16)


@pytest.fixture(scope="module")
def record(directory: Path) -> dict[str, Any]:
    return model_record(spec_from_argument(str(directory)))


def write(path: Path, texts: dict[str, str]) -> Path:
    lines = [json.dumps({"id": name, "text": text}) for name, text in texts.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


class Job:
    """An extraction with its own files, that counts the prompts it measures."""

    def __init__(self, root: Path, record: dict[str, Any], watch: pytest.MonkeyPatch) -> None:
        self.prompts = write(root / "prompts.jsonl", TEXTS)
        self.parts, self.out, self.record = root / "parts", root / "svd.zarr", record
        self.measured: list[str] = []
        measure = module.measure_batch

        def counting(prepared: Prepared, prompts: list) -> list[xr.Dataset]:
            self.measured += [prompt.id for prompt in prompts]
            return measure(prepared, prompts)

        watch.setattr(module, "measure_batch", counting)

    def run(self, settings: Settings = SETTINGS, batch: int | None = BATCH, **options: Any) -> None:
        self.measured.clear()
        extract(self.record, self.prompts, self.parts, self.out, settings, batch=batch, **options)

    def store(self) -> xr.Dataset:
        return bc.open_store(self.out).load()


@pytest.fixture
def job(tmp_path: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Job:
    return Job(tmp_path, record, monkeypatch)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, record: dict[str, Any]
) -> dict[str, bytes]:
    """The files of the store of a job that nothing happened to."""
    with pytest.MonkeyPatch.context() as watch:
        job = Job(tmp_path_factory.mktemp("undisturbed"), record, watch)
        job.run()
        return contents(job.out)


def contents(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


def test_the_store_holds_what_measure_returns(job: Job, directory: Path) -> None:
    job.run()
    store = job.store()
    model = AutoModelForCausalLM.from_pretrained(directory)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ds = bc.measure(model, tokenizer, list(TEXTS.values()), 4, tokens=[-1, 0], batch=BATCH)
    assert list(store["prompt"].values) == list(TEXTS)
    assert set(store.data_vars) == set(ds.data_vars)
    for name in (*ds.data_vars, "token_in", "token_out", "tokens", "token_text"):
        np.testing.assert_array_equal(store[name].values, ds[name].values, err_msg=name)


def test_the_store_says_where_it_is_from(job: Job, directory: Path) -> None:
    job.run()
    attributes = job.store().attrs
    assert attributes["model"] == directory.name
    assert attributes["checkpoint"] == "main"
    assert attributes["model_id"] == str(directory)
    assert attributes["revision"] == ""
    assert attributes["weight_dtype"] == attributes["dtype"] == "float32"
    assert attributes["tolerance"] == 1e-4


@pytest.mark.slow
def test_a_record_may_be_a_file(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(job.record))
    job.run()
    wanted = contents(job.out)
    extract(path, job.prompts, tmp_path / "other", tmp_path / "other.zarr", SETTINGS, batch=BATCH)
    assert contents(tmp_path / "other.zarr") == wanted


@pytest.mark.slow
def test_a_second_run_measures_nothing(job: Job, undisturbed: dict[str, bytes]) -> None:
    job.run()
    assert job.measured == list(TEXTS)
    job.run()
    assert job.measured == []
    assert contents(job.out) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("written", range(5))
def test_a_job_broken_off_goes_on_where_it_was(
    job: Job, undisturbed: dict[str, bytes], written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_part, left = schema.write_part, written

    def failing(*args: Any) -> Path:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return write_part(*args)

    with monkeypatch.context() as breaking:
        breaking.setattr(schema, "write_part", failing)
        with pytest.raises(KeyboardInterrupt):
            job.run()
    assert not job.out.exists()
    assert len(list(job.parts.glob("[!.]*.part"))) == written
    job.run()
    # Prompts are measured two at a time; a batch that was written whole is not measured again.
    assert job.measured == list(TEXTS)[written - written % BATCH :]
    assert contents(job.out) == undisturbed


# Kills its own process in the middle of writing the third prompt's store.
KILLED = """
import json, os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from blockcoupling.config.measurement import Settings
from blockcoupling.measurement.extract import extract
from blockcoupling.store import part

record, root = json.loads(sys.argv[1]), Path(sys.argv[2])
replacing, calls = part.replacing, []

@contextmanager
def dying(path):
    with replacing(path) as fresh:
        yield fresh
        calls.append(path)
        if len(calls) == 3:
            fresh.write_bytes(fresh.read_bytes()[:100])
            os.kill(os.getpid(), signal.SIGKILL)

part.replacing = dying
extract(record, root / "prompts.jsonl", root / "parts", root / "svd.zarr",
        Settings(k=4, tokens=[-1, 0]), batch=2)
"""


@pytest.mark.slow
def test_a_killed_job_goes_on_where_it_was(
    job: Job, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    died = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(job.record), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert died.returncode == -9, died.stderr
    assert len(list(job.parts.glob("[!.]*.part"))) == 2
    assert list(job.parts.glob(".tmp-*"))  # what it was writing
    job.run()
    assert job.measured == ["c/d", "e", "f"]
    assert contents(job.out) == undisturbed
    assert not list(job.parts.glob(".tmp-*"))


def test_each_batch_chooses_its_method_for_itself(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a job that is resumed in the middle has the bits of one that was never interrupted."""
    from blockcoupling.jacobian import decompose

    def by_prompts(operator: Operator, *counts: float) -> str:
        return "krylov" if operator.prompts == BATCH else "dense"

    monkeypatch.setattr(decompose, "choose_method", by_prompts)
    settings = Settings(k=1, tolerance=0.3)  # reached before the iteration is given up
    wide = save_tiny_model(tmp_path / "wide", hidden_size=64)
    job.record = model_record(spec_from_argument(str(wide)))
    monkeypatch.setattr(joining, "remove_joined", lambda *args: None)
    job.run(settings)
    whole, free = contents(job.out), job.store()["matrix_free"].values
    assert free[:4].any()  # two batches of two
    assert not free[4:].any()
    for lost in ("a", "f"):
        part_path(job.parts, lost).unlink()
        job.run(settings)
        assert job.measured == (["a", "b"] if lost == "a" else ["f"])
        assert contents(job.out) == whole


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [Settings(k=3, tokens=[-1, 0]), Settings(k=4), Settings(k=4, tokens=[-1, 0], seed=1)],
    ids=["k", "tokens", "seed"],
)
def test_other_settings_measure_again(
    job: Job, changed: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    job.run()
    with caplog.at_level(logging.WARNING):
        job.run(changed)
    assert job.measured == list(TEXTS)
    assert "from other settings, weights or text" in caplog.text
    assert job.store().sizes["k"] == changed.k


@pytest.mark.slow
def test_another_text_measures_that_prompt_again(job: Job) -> None:
    job.run(batch=1)
    write(job.prompts, TEXTS | {"b": "y"})
    job.run(batch=1)
    assert job.measured == ["b"]


def test_more_prompts_measure_those_alone(job: Job) -> None:
    job.run(batch=1)
    write(job.prompts, {"first": "new", **TEXTS})
    job.run(batch=1)
    assert job.measured == ["first"]
    assert list(job.store()["prompt"].values) == ["first", *TEXTS]


@pytest.mark.slow
def test_other_weights_measure_again(job: Job, tmp_path: Path) -> None:
    job.run()
    other = save_tiny_model(tmp_path / "other" / "tiny", hidden_size=32)
    job.record = model_record(spec_from_argument(str(other)))
    job.run()
    assert job.measured == list(TEXTS)


def free_memory(watch: pytest.MonkeyPatch, size: int) -> None:
    watch.setattr("blockcoupling.measurement.measure_batch.free_bytes", lambda device: size)


def test_memory_changes_the_batch_only_with_a_warning(
    job: Job, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free_memory(monkeypatch, 0)
    monkeypatch.setattr(joining, "remove_joined", lambda *args: None)
    job.run(batch=None)
    single = contents(job.out)
    assert json.loads((job.parts / "plan.json").read_text())["batch"] == 1
    assert "holds 1 prompts per batch, fewer than the 16" in caplog.text
    assert "`batch` = 1 gives the same bits" in caplog.text
    # Decided once: with more memory, a job that is run again keeps its batches.
    free_memory(monkeypatch, 10**12)
    for part in list(job.parts.glob("[!.]*.part"))[:2]:
        part.unlink()
    job.run(batch=None)
    assert len(job.measured) == 2
    assert contents(job.out) == single
    job.run(batch=1)
    assert job.measured == []


def test_the_default_batch_does_not_depend_on_memory(
    job: Job, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free_memory(monkeypatch, 2**24)  # enough for these five small prompts
    job.run(batch=None)
    assert job.measured == list(TEXTS)
    free_memory(monkeypatch, 10**12)
    job.run(batch=16)
    assert job.measured == []
    assert "per batch" not in caplog.text


@pytest.mark.slow
def test_streamed_weights_give_the_same(job: Job, tmp_path: Path) -> None:
    job.run()
    loaded = job.store()
    job.parts, job.out = tmp_path / "streamed", tmp_path / "streamed.zarr"
    job.run(stream=True)
    for name, values in loaded.data_vars.items():
        # The same arithmetic on the same weights.
        np.testing.assert_array_equal(job.store()[name], values, err_msg=str(name))


def test_float64(job: Job) -> None:
    job.run(dtype="float64")
    store = job.store()
    assert store.attrs["weight_dtype"] == store.attrs["dtype"] == "float64"


# ------------------------------------------------------------------------------------- refusals


def test_k_above_the_width(job: Job) -> None:
    with pytest.raises(UserError, match="Choose k from 1 to 16"):
        job.run(Settings(k=17))
    assert not job.parts.exists()
    job.run(Settings(k=17), k_when_smaller="d")
    assert job.store().sizes["k"] == 16


def test_prompts_that_do_not_fit_are_listed_before_anything_is_measured(job: Job) -> None:
    write(job.prompts, {"good": "good", "long": "x" * 65, "longer": "x" * 66})
    with pytest.raises(UserError) as caught:
        job.run(Settings(k=99))
    lines = str(caught.value).splitlines()
    assert [line[:14] for line in lines] == ["prompt 'long' ", "prompt 'longer", "k = 99: this m"]
    assert job.measured == []


def test_no_prompts(job: Job) -> None:
    job.prompts.write_text("")
    with pytest.raises(UserError, match="holds no prompt"):
        job.run()


def spoil(record: dict[str, Any], directory: Path, change: Callable) -> dict[str, Any]:
    """The record of a copy of the tiny model whose weights are changed."""
    save_tiny_model(directory, hidden_size=16)
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    return model_record(spec_from_argument(str(directory)))


def test_a_nan_weight_is_named_by_model_block_and_prompt(job: Job, tmp_path: Path) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["gpt_neox.layers.1.mlp.dense_4h_to_h.weight"][2, 3] = torch.nan

    job.record = spoil(job.record, tmp_path / "broken", change)
    message = r"model broken at main, prompt 'a': the hidden state after block 2 is not finite"
    with pytest.raises(MeasurementError, match=message):
        job.run()
    assert not job.out.exists()


def test_a_block_that_does_nothing_is_kept_as_zero_and_said(
    job: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        for name, values in weights.items():
            if ".layers.0." in name and ("4h_to_h" in name or "attention.dense" in name):
                values.zero_()

    job.record = spoil(job.record, tmp_path / "idle", change)
    job.run()
    ds = job.store()
    assert not ds["S"].sel(block=1).where(ds["token_in"] >= 0, 0).any()
    assert (ds["S"].sel(block=2, k=1).where(ds["token_in"] >= 0, 1) > 0).all()
    assert "block 1 (prompt 'a'" in caplog.text


# ------------------------------------------------- what decides numbers, and what does not


def changed(settings: Settings, **values: Any) -> Settings:
    return settings.model_copy(update=values)


def other_weights(directory: Path) -> None:
    """Weights of the same configuration, written in the place of those that are there."""
    weights = load_file(directory / "model.safetensors")
    save_file(
        {name: values * 1.5 for name, values in weights.items()},
        directory / "model.safetensors",
        metadata={"format": "pt"},
    )


@pytest.mark.slow
def test_other_weights_in_the_same_place_measure_again(job: Job, tmp_path: Path) -> None:
    directory = save_tiny_model(tmp_path / "m", hidden_size=16)
    job.record = model_record(spec_from_argument(str(directory)))
    job.run()
    old = job.store()
    other_weights(directory)
    with pytest.raises(UserError, match="weights changed after the model's record was made"):
        job.run()
    job.record = model_record(spec_from_argument(str(directory)))
    job.run()
    assert job.measured == list(TEXTS)
    new = job.store()
    assert not np.array_equal(new["S"], old["S"])
    fresh = bc.measure(
        AutoModelForCausalLM.from_pretrained(directory),
        AutoTokenizer.from_pretrained(directory),
        list(TEXTS.values()),
        4,
        tokens=[-1, 0],
        batch=BATCH,
    )
    np.testing.assert_array_equal(new["A"], fresh["A"])
    assert new.attrs["weights_sha256"] != old.attrs["weights_sha256"]


def test_what_decides_no_number_measures_nothing(job: Job, directory: Path, tmp_path: Path) -> None:
    job.run()
    old = job.store()
    copy = shutil.copytree(directory, tmp_path / "another name")
    spec = spec_from_argument(str(copy)) | {"name": "other", "family": "x", "facts": {"a": 1}}
    job.record = model_record(spec)
    job.run(device="cpu")
    assert job.measured == []
    new = job.store()
    xr.testing.assert_equal(new, old)
    assert new.attrs["model"] == "other"
    assert new.attrs["model_id"] == str(copy)
    assert new.attrs["identity"] == old.attrs["identity"]


@pytest.mark.slow
def test_keeping_less_measures_nothing(job: Job, undisturbed: dict[str, bytes]) -> None:
    """The rest of a store that holds more is what a store of less is, to the bit."""
    job.run(changed(SETTINGS, vectors=True, swapped=True, overlaps=True, full=True))
    assert {"U", "V", "A_swapped", "S_full", *OVERLAPS} < set(job.store().data_vars)
    job.run(changed(SETTINGS, overlaps=True))
    assert job.measured == []
    assert set(OVERLAPS) < set(job.store().data_vars)
    assert "A_swapped" not in job.store()
    job.run(changed(SETTINGS, swapped=True))
    assert job.measured == []
    assert "A_swapped" in job.store()
    assert "U" not in job.store()
    assert not set(OVERLAPS) & set(job.store().data_vars)
    job.run()
    assert job.measured == []
    assert contents(job.out) == undisturbed


@pytest.mark.slow
def test_keeping_more_measures_again(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    job.run()
    for setting, lacking in {"vectors": "U, V", "overlaps": ", ".join(OVERLAPS)}.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            job.run(changed(SETTINGS, **{setting: True}))
        assert job.measured == list(TEXTS)
        assert f"{job.out} has no {lacking}; measuring again" in caplog.text


def test_all_singular_values_of_large_blocks_are_another_arithmetic() -> None:
    def marks(settings: Settings, dimension: int) -> dict:
        return module._decisive(settings, 4, dimension)[0]

    for method, dimension, same in (
        ("auto", 256, True),
        ("auto", 257, False),
        ("dense", 256, True),
        ("dense", 257, False),
        ("krylov", 16, False),
    ):
        settings = Settings(k=4, method=method)
        assert (
            marks(settings, dimension) == marks(changed(settings, full=True), dimension)
        ) is same


@pytest.mark.slow
def test_a_tighter_tolerance_measures_again(job: Job) -> None:
    job.run()
    job.run(changed(SETTINGS, tolerance=1e-5))
    assert job.measured == list(TEXTS)
    assert job.store().attrs["tolerance"] == 1e-5


@pytest.mark.slow
def test_with_more_prompts_the_store_is_that_of_a_job_from_scratch(
    job: Job, tmp_path: Path
) -> None:
    """To the bit: a batch of another size rounds otherwise, so that it is measured again."""
    job.run(batch=3)
    whole = contents(job.out)
    job.parts, job.out = tmp_path / "grown", tmp_path / "grown.zarr"
    write(job.prompts, dict(list(TEXTS.items())[:4]))
    job.run(batch=3)
    write(job.prompts, TEXTS)
    job.run(batch=3)
    assert job.measured == list(TEXTS)[3:]
    assert contents(job.out) == whole
    write(job.prompts, TEXTS | {"e": "other words"})
    job.run(batch=3)
    assert job.measured == list(TEXTS)[3:]
    write(job.prompts, TEXTS)
    job.run(batch=3)
    assert contents(job.out) == whole


def test_weights_written_to_while_they_are_streamed_are_refused(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = save_tiny_model(tmp_path / "m", hidden_size=16)
    job.record = model_record(spec_from_argument(str(directory)))
    measure = module.measure_batch

    def disturbed(prepared: Prepared, prompts: list) -> list[xr.Dataset]:
        measured = measure(prepared, prompts)
        other_weights(directory)
        return measured

    monkeypatch.setattr(module, "measure_batch", disturbed)
    with pytest.raises(UserError, match="weights changed after the model's record was made"):
        job.run(stream=True)
    assert list(job.parts.glob("*.part")) == []
