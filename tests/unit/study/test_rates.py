"""Rates of machines: what is written, what is read, and estimates made of them."""

from pathlib import Path

import pytest

from blockcoupling.config.models import TrainedModel
from blockcoupling.config.steps import step, steps
from blockcoupling.config.study import Study
from blockcoupling.errors import UserError
from blockcoupling.study.check import load_config
from blockcoupling.study.needs import extract_needs, needs_of
from blockcoupling.study.plan import as_table, plan_of
from blockcoupling.study.rates import GUESSED, Accelerator, Processor, read_rates, write_rates

NODE = Processor(host="node7", device="a processor: fast", day="2026-12-01", flops=1.5e11)
GPU = Accelerator(host="gpu3", device="a GPU", day="2026-12-02", torch="2.13", flops=4e13)
CONFIG = {
    "models": {"m": {"id": "x/m", "facts": {"config": {"parameters": 7e9, "blocks": 32}}}},
    "datasets": {"d": {"name": "handwritten"}},
}


def test_what_is_written_is_read_and_the_other_kind_stays(tmp_path: Path) -> None:
    file = tmp_path / "rates.yaml"
    write_rates(file, processor=NODE)
    write_rates(file, gpu=GPU)
    found = read_rates(file)
    assert (found.processor, found.gpu) == (NODE, GPU)
    slower = NODE.model_copy(update={"flops": 2e10})
    write_rates(file, processor=slower)
    assert read_rates(file).processor == slower
    assert read_rates(file).gpu == GPU


def test_a_wrong_file_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "rates.yaml"
    file.write_text("processor: {flop: 1e10, call: -1}\n")
    with pytest.raises(UserError, match=r"rates.yaml has 2 mistakes:(.|\n)*did you mean flops"):
        read_rates(file)
    file.write_text("- 1\n- 23\n")
    with pytest.raises(UserError, match="holds no rates: it should be a mapping with processor"):
        read_rates(file)
    with pytest.raises(UserError, match=r"rates: no file absent.yaml; blockcoupling calibrate"):
        load_config({**CONFIG, "rates": "absent.yaml"})


def test_a_plan_names_its_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = load_config(CONFIG)
    assert GUESSED in as_table(plan_of(study))
    write_rates(Path("rates.yaml"), processor=NODE)
    assert plan_of(study)["rates"] == "rates of node7 (a processor: fast), 2026-12-01"
    on_gpu = load_config({**CONFIG, "extract": {"device": "cuda"}})
    assert "NVIDIA H200 in docs/gpu.md" in plan_of(on_gpu)["rates"]
    write_rates(Path("rates.yaml"), gpu=GPU)
    assert "GPU: gpu3 (a GPU), 2026-12-02" in plan_of(on_gpu)["rates"]


def test_a_slower_machine_takes_longer_and_asks_for_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study, file = Study.model_validate(CONFIG), Path("rates.yaml")
    fast = extract_needs(study, "m", "d")
    for rate in ("flops", "read", "memory", "write"):
        slow = Processor(host="slow").model_copy(update={rate: 1e6})
        write_rates(file, processor=slow)
        assert extract_needs(study, "m", "d").minutes > fast.minutes, rate
    write_rates(file, processor=Processor(host="large", start_mb=2000))
    assert extract_needs(study, "m", "d").mem_mb > fast.mem_mb


# ---------------------------------------------------------------- planned and taken

# Rates of two cores of an AMD EPYC, as `blockcoupling calibrate` measured them, and what jobs took
# on the same machine. The built-in study: mean seconds of a job in a process that it shares (as its
# benchmark files list them), by step, modality, width and dataset. SmolLM2's part of
# config/studies/damage.yaml: seconds of jobs of their own, by Snakemake's log.
MEASURED = Processor(
    host="vm", cores=2, flops=1.05e11, flops_float64=5.93e10, shared=0.941, memory=4.06e10,
    read=2.3e9, write=4.17e8, start=5.0, start_tables=1.33, start_mb=460, call=8.14e-4,
    dense=1.09, iterated=0.917,
)  # fmt: skip
TRAIN_STARTS = 3.0
"""In the first training of a process packages are imported: of 3 trainings, a second each."""
TOOK = {
    ("train", 32, None): 13.17 / 3 - TRAIN_STARTS / 3,
    ("train", 64, None): 17.75 / 3 - TRAIN_STARTS / 3,
    ("extract", 32, "heldout"): 5.34 / 12,
    ("extract", 32, "handwritten"): 5.12 / 12,
    ("extract", 64, "heldout"): 5.31 / 12,
    ("extract", 64, "handwritten"): 4.86 / 12,
    ("tokenwise", 32, "handwritten"): 2.28 / 6,
    ("tokenwise", 64, "handwritten"): 2.36 / 6,
    ("damage", 32, "handwritten"): 1.63 / 6,
    ("damage", 64, "handwritten"): 1.79 / 6,
    ("reduce", 32, "heldout"): 6.20 / 12,
    ("reduce", 64, "handwritten"): 5.71 / 12,
    ("score", 32, None): 4.12 / 12,
    ("score", 64, None): 5.70 / 12,
}
IMAGES_TOOK = {
    "train": (9.87 - TRAIN_STARTS) / 4,
    "extract": 7.66 / 16,
    "reduce": 10.62 / 16,
    "score": 1.18 / 16,
    "weights": 0.22 / 16,
    "image_checkpoint": 0.39 / 16,
}
WHOLE_STUDY = 97.69 + 31.99
"""Seconds of its shared processes."""
SMOLLM2_TOOK = {
    ("weights", None): 4,
    ("extract", "handwritten"): 28,
    ("extract", "winogrande"): 27,
    ("reduce", "handwritten"): 3,
    ("reduce", "winogrande"): 3,
    ("score", None): 34,
    ("damage", "handwritten"): 931,
    ("damage", "winogrande"): 190,
}


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    write_rates(tmp_path / "rates.yaml", processor=MEASURED)
    return tmp_path / "rates.yaml"


def test_the_built_in_study_took_what_is_planned(measured: Path) -> None:
    study = load_config(Path(__file__).parents[3] / "config" / "config.yaml")
    study.rates = measured
    total = 0.0
    for row in (each for each in steps() if "model" in each.per and each.needs):
        for job in row.wildcards(study):
            needs, model = needs_of(study, row.name, job), study.models[job["model"]]
            seconds = 60 * (needs.expected - needs.starting)
            total += seconds
            assert isinstance(model, TrainedModel)
            took = TOOK.get((row.name, model.train.hidden_size, job.get("dataset")))
            if model.takes == "image":
                took = IMAGES_TOOK[row.name]
            if took is not None:
                assert took / 2 < seconds < took * 2, (row.name, job)
    total += MEASURED.start * len(study.chunks())
    assert WHOLE_STUDY / 1.5 < total < WHOLE_STUDY * 1.5


def test_the_study_of_smollm2_took_what_is_planned(measured: Path, tmp_path: Path) -> None:
    questions = tmp_path / "winogrande.jsonl"  # ten questions of at most 120 bytes
    questions.write_text(
        '{"text": "' + 110 * "x" + '"}\n' + 9 * ('{"text": "' + 112 * "y" + '"}\n')
    )
    facts = {"parameters": 134_515_008, "blocks": 30, "dimension": 576, "vocabulary": 49_152}
    study = Study.model_validate(
        {
            "models": {"smollm2": {"id": "x/smollm2", "init": True, "facts": {"config": facts}}},
            "datasets": {
                "handwritten": {"name": "handwritten"},
                "winogrande": {"path": str(questions)},
            },
            "extract": {"k": 20, "overlaps": True},
            "reduce": {"k": [1, 2, 5, 10, 20]},
            "damage": {"pairs": {"within": 4}, "prompts": 6, "passages": 4, "window": 64},
            "rates": str(measured),
        }
    )
    planned = taken = 0.0
    for (name, dataset), took in SMOLLM2_TOOK.items():
        of = {"model": "smollm2", "checkpoint": "init", "dataset": dataset}
        seconds = 60 * needs_of(study, name, {key: of[key] for key in step(name).per}).expected
        assert took / 2 < seconds < took * 2, (name, dataset, seconds)
        planned, taken = planned + seconds, taken + took
    assert taken / 1.5 < planned < taken * 1.5


def test_a_plan_lists_what_finished_jobs_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = load_config({**CONFIG, "study": "s"})
    assert plan_of(study)["totals"]["done"] == 0
    assert "took" not in as_table(plan_of(study))
    for name in ("extract", "score"):  # one of two attempts failed
        file = Path("results/s/benchmarks", name, "m", *(["main/d"] if name == "extract" else []))
        file = file.with_name(f"{file.name}.tsv") if name == "extract" else file / "main.tsv"
        file.parent.mkdir(parents=True)
        file.write_text("s\tcpu_time\n5.0\t1\n1800.0\t60\n")
    plan = plan_of(study)
    assert (plan["totals"]["done"], plan["totals"]["took_hours"]) == (2, 1.0)
    lines = {each["step"]: each for each in plan["steps"]}
    assert lines["extract"]["planned_hours"] == lines["extract"]["total_hours"]
    assert "2 jobs have run: they took 60 minutes" in as_table(plan)
