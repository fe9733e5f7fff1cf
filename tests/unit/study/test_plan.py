"""What a study is said to need: every job once, sums that are sums, a table that can be read."""

import pytest

from blockcoupling.config.study import Study
from blockcoupling.study import needs
from blockcoupling.study.check import load_config
from blockcoupling.study.plan import as_table, plan_of
from blockcoupling.study.rates import Processor

CONFIG = {
    "models": {
        "large": {
            "id": "x/large",
            "init": True,
            "facts": {"config": {"parameters": 7e9, "blocks": 32, "dimension": 4096}},
        },
        "small": {"train": {"hidden_size": 32, "blocks": 2}, "checkpoints": [0, 600]},
    },
    "datasets": {
        "one": {"name": "handwritten", "prompts": 100},
        "two": {"name": "heldout", "prompts": 4},
    },
}


@pytest.fixture
def study() -> Study:
    return Study.model_validate(CONFIG)


def test_every_job_of_a_model_is_counted_once(study):
    jobs = {(line["step"], line["model"]): line["jobs"] for line in plan_of(study)["steps"]}
    assert jobs == {
        ("train", "small"): 1,
        ("checkpoint", "small"): 2,
        **{("weights", m): 2 for m in CONFIG["models"]},
        **{("extract", m): 4 for m in CONFIG["models"]},
        **{("reduce", m): 4 for m in CONFIG["models"]},
        **{("score", m): 2 for m in CONFIG["models"]},
    }
    assert plan_of(study)["totals"]["jobs"] == sum(jobs.values())


def test_a_line_is_about_the_largest_job_and_the_sum(study):
    (line,) = [
        line
        for line in plan_of(study)["steps"]
        if (line["step"], line["model"]) == ("extract", "large")
    ]
    one, two = (needs.extract_needs(study, "large", d, "main") for d in ("one", "two"))
    assert line["memory_gb"] == pytest.approx(one.mem_mb / 1024, abs=0.06)  # one decimal
    assert line["hours"] == pytest.approx(one.expected / 60, abs=1e-4)
    assert line["total_hours"] == pytest.approx(2 * (one.expected + two.expected) / 60, abs=1e-3)


def test_totals_are_sums_and_largest(study):
    plan = plan_of(study)
    assert plan["totals"]["hours"] == pytest.approx(
        sum(line["total_hours"] for line in plan["steps"]), abs=1e-3
    )
    assert plan["totals"]["memory_gb"] == max(line["memory_gb"] for line in plan["steps"])
    assert plan["totals"]["gpu_hours"] == 0


def test_on_a_gpu_its_hours_are_counted():
    study = Study.model_validate(CONFIG | {"extract": {"device": "cuda"}})
    plan = plan_of(study)
    on_gpu = [line for line in plan["steps"] if line["gpus"]]
    assert {line["step"] for line in on_gpu} == {"extract", "score"}
    assert plan["totals"]["gpu_hours"] == pytest.approx(
        sum(line["total_hours"] for line in on_gpu), abs=1e-3
    )
    assert "on a GPU" in as_table(plan)


def test_the_table_has_a_row_a_line_and_the_totals(study):
    plan = plan_of(study)
    head, *rows = as_table(plan).split("\n\n")[0].splitlines()
    assert len(rows) == len(plan["steps"])
    assert head.split()[:4] == ["step", "model", "jobs", "memory/GB"]
    assert max(map(len, rows)) <= len(head)
    assert f"{plan['totals']['jobs']} jobs" in as_table(plan)


def test_jobs_that_share_a_process_are_one() -> None:
    pair = {"grid": {"seed": [0, 1, 2]}, "train": {"hidden_size": 32, "blocks": 2}}
    models = {"pop": {**pair, "checkpoints": [0, 600]}, "large": CONFIG["models"]["large"]}
    plans = {}
    for shared in (False, True):
        models["pop"] = {**models["pop"], "together": 2 if shared else 1}
        datasets = {name: {"name": "heldout", "prompts": 4} for name in ("one", "two")}
        config = {"models": models, "datasets": datasets, "together": {"datasets": shared}}
        config |= {"weight_spectra": True}
        plans[shared] = plan_of(load_config(config))
    lines = [(each["step"], each["model"], each["jobs"]) for each in plans[True]["steps"]]
    assert lines[:2] == [("together", "pop-seed0 to pop-seed1", 1), ("together", "pop-seed2", 1)]
    assert ("extract", "large", 2) in lines  # two checkpoints, two datasets
    assert not [model for step, model, _ in lines if step != "together" and "pop" in model]
    # The same work and files; packages are imported by fewer processes.
    disk = [plan["totals"]["disk_gb"] for plan in plans.values()]
    assert disk[0] == pytest.approx(disk[1], 1e-3)
    fewer = plans[False]["totals"]["jobs"] - plans[True]["totals"]["jobs"]
    saved = plans[False]["totals"]["hours"] - plans[True]["totals"]["hours"]
    assert 0 < saved <= fewer * Processor().start / 3600
