"""The states of jobs, from files and logs that are made up here."""

import os
import time
from pathlib import Path

import pytest
from rich.console import Console

from blockcoupling.catalog import join as joined
from blockcoupling.catalog import making, write_entry
from blockcoupling.config.damage import Damage
from blockcoupling.config.study import Study
from blockcoupling.lab import join
from blockcoupling.lab.needs import damage_needs
from blockcoupling.study.journal import Begun, Failure, Jobs, Run
from blockcoupling.study.planned import Planned
from blockcoupling.study.running import Now
from blockcoupling.study.status import as_json, notes, status
from blockcoupling.study.status_page import page, summary

OF = {"model": "small", "checkpoint": "step2", "dataset": "mine"}
NAME = "small/step2/mine"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    return Study(
        study="s",
        models={"small": {"train": {"hidden_size": 16, "blocks": 2, "heads": 2, "steps": 2}}},
        datasets={"mine": {"name": "handwritten"}},
    )


def extract(reason: str = "") -> Planned:
    return Planned(
        rule="extract",
        wildcards=OF,
        outputs=(f"results/s/svd/{NAME}/svd.zarr/zarr.json", f"results/s/entries/{NAME}/svd.yml"),
        reason=reason,
        log=f"results/s/logs/extract/{NAME}.log",
        benchmark=f"results/s/benchmarks/extract/{NAME}.tsv",
    )


def write(path: str | None, text: str = "", age: float = 0.0) -> None:
    file = Path(str(path))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    then = time.time() - age
    os.utime(file, (then, then))


def made(job: Planned, age: float = 100.0) -> None:
    for output in job.outputs:
        write(output, age=age)


def parts(*ages: float) -> None:
    write("results/s/prompts/mine.jsonl", '{"id": "a", "text": "b"}\n' * 10)
    write(f"results/s/parts/{NAME}/plan.json", "{}", age=500)
    for number, age in enumerate(ages):
        write(f"results/s/parts/{NAME}/p{number}.part", age=age)
    write(f"results/s/parts/{NAME}/.tmp-p9.part")  # half a part


def state_of(study: Study, job: Planned, running: Now | None = None, planned_at=None):
    at = time.time() if planned_at is None else planned_at
    return status(study, [job], at, running or Now()).jobs[0]


def begun(job: Planned, since: float) -> Now:
    jobs = Jobs(Run(1, "here", since), {job.outputs[0]: Begun(since)})
    return Now(jobs, alive=True)


def test_what_snakemake_would_leave_alone_is_done(study: Study):
    made(extract())
    assert state_of(study, extract()).state == "done"


def test_what_is_there_and_would_be_made_again_is_stale(study: Study):
    job = extract("Params have changed since last execution: before: 1 now: 2")
    made(job)
    found = state_of(study, job)
    assert (found.state, found.why) == ("stale", "Params have changed since last execution")
    # … unless it was made after that was planned.
    assert state_of(study, job, planned_at=time.time() - 200).state == "done"


def test_what_is_not_there_waits_and_says_how_far_it_came(study: Study):
    job = extract("Missing output files: x")
    write(job.outputs[0])
    parts(400, 300, 200, 600)  # the last is older than the job's plan: of other settings
    found = state_of(study, job)
    assert (found.state, found.prompts.done, found.prompts.total) == ("waiting", 3, 10)


def test_what_runs_tells_its_prompts_and_the_time_left(study: Study):
    job = extract("Missing output files: x")
    parts(400, 300, 15, 5)  # two of an earlier attempt, two in the last 20 s
    since = time.time() - 20
    running = begun(job, since)
    found = state_of(study, job, running)
    assert (found.state, found.prompts.done, found.prompts.total) == ("running", 4, 10)
    assert found.left == pytest.approx(6 * 10, rel=0.05)  # 10 s a prompt


def failure(job: Planned, message: str = "") -> Now:
    return Now(Jobs(failed={job.outputs[0]: Failure(time.time(), message)}))


def test_a_failure_gives_the_verbs_reason_and_its_log(study: Study):
    job = extract("Missing output files: x")
    write(job.log, "measuring: prompt 1 of 9\nerror: the disk is full\n")
    found = state_of(study, job, failure(job, "FAILED"))
    assert (found.state, found.why, found.job.log) == ("failed", "the disk is full", job.log)


def test_a_failure_of_a_job_that_was_made_otherwise_counts_no_more(study: Study):
    job = extract()
    made(job)
    assert state_of(study, job, failure(job)).state == "done"


@pytest.mark.parametrize(
    ("log", "message", "reason"),
    [
        ("measuring\n", "FAILED. Why: out of memory", "FAILED. Why: out of memory"),
        ("measuring\nand then\n", "", "and then"),
        ("", "", "the job ended without an error message (killed, or out of memory)"),
    ],
)
def test_without_an_error_message_slurm_or_the_last_line_gives_the_reason(
    study, log, message, reason
):
    job = extract("Missing output files: x")
    write(job.log, log)
    assert state_of(study, job, failure(job, message)).why == reason


def test_time_left_follows_what_the_like_took(study: Study):
    done = extract()
    made(done)
    write(done.benchmark, "s\th:m:s\n40.0\t0:00:40\n")
    other = Planned("extract", {**OF, "checkpoint": "step1"}, ("x",), "Missing output files")
    found = status(study, [done, other], time.time(), Now())
    assert found.left == pytest.approx(40)
    assert summary(found) == "2 jobs: 1 done, 1 waiting; about 40.0 s left one after another"
    document = as_json(found)
    assert (document["jobs"], document["done"], document["waiting"]) == (2, 1, 1)
    assert document["steps"][0]["seconds_each"] == 40


def test_time_left_of_another_model_is_estimated_and_scaled(study: Study):
    other = study.model_copy(update={"models": study.models | {"other": study.models["small"]}})
    done, like = extract(), Planned("extract", {**OF, "model": "other"}, ("x",), "Missing")
    estimate = status(other, [like], time.time(), Now()).left
    made(done)
    write(done.benchmark, f"s\th:m:s\n{3 * estimate}\t0:00:40\n")
    # The same sizes: the estimate of both is the same, and the first took three times as long.
    assert status(other, [done, like], time.time(), Now()).left == pytest.approx(3 * estimate)


def test_ablation_tells_how_far_it_is_from_the_table_of_steps(study: Study):
    join()
    job = Planned("damage", OF, ("x",), "Missing output files: x")
    write("results/s/prompts/mine.jsonl", '{"id": "a", "text": "b"}\n' * 10)
    write(f"results/s/damage_parts/{NAME}/plan.json", "{}", age=500)
    write(f"results/s/damage_parts/{NAME}/p1.part")
    of_damage = study.model_copy(update={"damage": Damage(prompts=4)})
    found = state_of(of_damage, job)
    assert (found.prompts.done, found.prompts.total) == (1, 4)
    work = damage_needs(of_damage, OF["model"], OF["dataset"], OF["checkpoint"]).expected
    assert work > 0
    assert found.left == pytest.approx(3 / 4 * max(10, 60 * work))


def test_results_of_two_versions_of_the_code_are_noted(study: Study, capsys):
    files = []
    for version in ("1", "2"):
        write(f"results/s/models/{version}.json", "{}")
        made_by = {**making.making([], {}), "code": {"version": version}}
        files.append(Path(f"results/s/entries/{version}.yml"))
        facets = {"model": version, "checkpoint": "main"}
        write_entry(files[-1], "model", f"results/s/models/{version}.json", facets, made_by)
    assert notes(study) == []
    # The latest catalog there is: that of measurements, until the study is done.
    joined(files, study.results / "catalog" / "measurements.yml", study="s", results=study.results)
    found = status(study, [], time.time(), Now(), notes(study))
    assert as_json(found)["notes"] == notes(study)
    Console(width=200).print(page(found))
    assert "results were made by 2 versions of the code" in capsys.readouterr().out
    write("results/s/catalog/measurements.yml", "{}")
    assert "is not an Intake 2 catalog" in notes(study)[0]
