"""Jobs of a model in one process: each once, after what it needs, a checkpoint at a time."""

from itertools import groupby

import pytest

from blockcoupling.config.steps import steps
from blockcoupling.config.study import Study
from blockcoupling.study.needs import needs_of, nothing
from blockcoupling.study.together import chunk_needs, datasets_needs, jobs_of, rule_needs

TEXT = {
    "train": {"hidden_size": 32, "blocks": 2, "steps": 8},
    "checkpoints": [0, 8],
    "init": True,
    "population": "both",
    "together": 2,
}
TWO = {"one": {"name": "handwritten"}, "two": {"name": "heldout"}}


@pytest.fixture
def study() -> Study:
    more = {"tokenwise": {}, "damage": {}, "weight_spectra": True}
    return Study(models={"a": TEXT, "b": TEXT}, datasets=TWO, **more)


def test_every_job_of_a_model_is_there_once(study):
    found = [(row.name, *job.values()) for row, job in jobs_of(study, ["a", "b"])]
    assert len(found) == len(set(found))
    assert set(found) == {
        (row.name, *job.values())
        for row in steps()
        if "model" in row.per
        for job in row.wildcards(study)
    }


def test_a_job_comes_after_those_whose_files_it_takes(study):
    names = [row.name for row, _ in jobs_of(study, ["a"])]
    assert names[:3] == ["train", "checkpoint", "checkpoint"]
    for first, then in [("weights", "model"), ("extract", "reduce"), ("weights", "extract")]:
        assert names.index(first) < names.index(then)
    by_checkpoint = [job.get("checkpoint") for _, job in jobs_of(study, ["a"])][3:]
    assert [name for name, _ in groupby(by_checkpoint)] == study.checkpoints("a")


def test_jobs_in_one_process_need_the_largest_and_take_the_sum(study):
    (chunk,) = study.chunks()
    each = [needs_of(study, row.name, job) for row, job in jobs_of(study, ["a", "b"])]
    found = rule_needs(study, f"together_{chunk}", {})
    assert found == chunk_needs(study, chunk)
    assert found.mem_mb == max(job.mem_mb for job in each)
    work = sum(job.expected - job.starting for job in each)
    # Packages are imported once.
    assert found.expected == pytest.approx(work + max(job.starting for job in each))


def test_rules_are_known_by_name(study):
    of = {"model": "a", "checkpoint": "step8"}
    found = rule_needs(study, "extract_together_text", of)
    assert found == datasets_needs(study, "a", "step8")
    two = [rule_needs(study, "extract", {**of, "dataset": name}) for name in TWO]
    work = sum(job.expected - job.starting for job in two)
    assert found.expected == pytest.approx(work + two[0].starting)
    assert rule_needs(study, "all", {}) == nothing(study)
