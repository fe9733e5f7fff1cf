"""How jobs stand, told from files, notes and logs that are made up here, with Snakemake's names."""

import base64
import json
import os
import time
from pathlib import Path

import pytest

from blockcoupling.config.study import Study
from blockcoupling.study.failures import failures
from blockcoupling.study.planned import Planned
from blockcoupling.study.running import Begun, Now, now
from blockcoupling.study.status import as_json, status
from blockcoupling.study.status_page import summary

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
        write(f"results/s/parts/{NAME}/p{number}.zarr/zarr.json", age=age)
    write(f"results/s/parts/{NAME}/.tmp-p9.zarr/zarr.json")  # half a part


def stands(study: Study, job: Planned, running: Now | None = None, planned_at=None):
    at = time.time() if planned_at is None else planned_at
    return status(study, [job], at, running or Now()).jobs[0]


def test_what_snakemake_would_leave_alone_is_done(study: Study):
    made(extract())
    assert stands(study, extract()).state == "done"


def test_what_is_there_and_would_be_made_again_is_stale(study: Study):
    job = extract("Params have changed since last execution: before: 1 now: 2")
    made(job)
    found = stands(study, job)
    assert (found.state, found.why) == ("stale", "Params have changed since last execution")
    # … unless it was made after that was planned.
    assert stands(study, job, planned_at=time.time() - 200).state == "done"


def test_what_is_not_there_waits_and_says_how_far_it_came(study: Study):
    job = extract("Missing output files: x")
    write(job.outputs[0])
    parts(400, 300, 200, 600)  # the last is older than the job's plan: of other settings
    found = stands(study, job)
    assert (found.state, found.prompts) == ("waiting", (3, 10))


def test_what_runs_tells_its_prompts_and_the_time_left(study: Study):
    job = extract("Missing output files: x")
    parts(400, 300, 15, 5)  # two of an earlier attempt, two in the last 20 s
    since = time.time() - 20
    running = Now(snakemake={1: since - 100}, begun={job.outputs[1]: Begun(since)})
    found = stands(study, job, running)
    assert (found.state, found.prompts) == ("running", (4, 10))
    assert found.left == pytest.approx(6 * 10, rel=0.05)  # 10 s a prompt


def test_a_note_of_a_killed_snakemake_is_of_nothing_that_runs(study: Study):
    job = extract("Missing output files: x")
    left = {job.outputs[0]: Begun(time.time() - 50)}
    assert stands(study, job, Now(begun=left)).state == "waiting"
    later = {1: time.time() - 10}
    assert stands(study, job, Now(snakemake=later, begun=left)).state == "waiting"


def test_a_job_in_slurm_runs_whatever_became_of_snakemake(study: Study):
    job = extract("Missing output files: x")
    noted = {job.outputs[0]: Begun(time.time() - 50, "17")}
    for state, expected in [("PENDING", "queued"), ("RUNNING", "running")]:
        assert stands(study, job, Now(begun=noted, queue={"17": state})).state == expected
    assert stands(study, job, Now(begun=noted, queue={"18": "RUNNING"})).state == "waiting"


def snakemake_says(*lines: str, age: float = 0.0, log: str = "1.snakemake.log") -> None:
    stamp = time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(time.time() - age))
    write(f".snakemake/log/{log}", f"[{stamp}]\nError in rule extract:\n" + "\n".join(lines) + "\n")


def error(job: Planned, message: str = "None", *more: str) -> list[str]:
    told = [f"message: {message}", f"output: {', '.join(job.outputs)}", f"log: {job.log} (…)"]
    return [f"    {line}" for line in [*told, *more]]


def test_a_failure_gives_the_verbs_reason_and_its_log(study: Study):
    job = extract("Missing output files: x")
    write(job.log, "measuring: prompt 1 of 9\nerror: the disk is full\n", age=10)
    snakemake_says(*error(job), age=9)
    found = stands(study, job)
    assert (found.state, found.why, found.job.log) == ("failed", "the disk is full", job.log)


def test_a_failure_before_the_last_attempt_counts_no_more(study: Study):
    job = extract("Params have changed since last execution")
    snakemake_says(*error(job), age=200)
    write(job.log, "error: it was", age=150)
    made(job)
    assert stands(study, job).state == "stale"


@pytest.mark.parametrize(
    ("slurm_log", "message", "reason"),
    [
        ("slurmstepd: error: Detected 1 oom_kill event", "x", "Detected 1 oom_kill event"),
        ("", "SLURM status is: 'TIMEOUT'", "SLURM status is: 'TIMEOUT'"),
        ("", "None", "it ended without a word: killed, or out of memory"),
    ],
)
def test_what_the_verb_could_not_say_slurm_or_snakemake_says(study, slurm_log, message, reason):
    job = extract("Missing output files: x")
    write(job.log, "", age=10)
    snakemake_says(*error(job, message, "external_jobid: 17"))
    write(".snakemake/slurm_logs/rule_extract/a/17.log", slurm_log)
    assert reason in stands(study, job).why


def test_the_last_failure_of_a_job_is_the_one_told(study: Study):
    job = extract()
    snakemake_says(*error(job, "first"), age=100, log="2026-01-01.snakemake.log")
    snakemake_says(*error(job, "second"), log="2026-01-02.snakemake.log")
    assert failures()[job.outputs[0]].message == "second"


def test_the_notes_of_snakemake_are_read_however_long_the_name(study: Study):
    short, long = "a/b.yml", "x" * 400
    name = base64.urlsafe_b64encode(short.encode()).decode()
    write(f".snakemake/incomplete/{name}", json.dumps({"external_jobid": None}))
    name = base64.urlsafe_b64encode(long.encode()).decode()
    cut = [f"@{name[:254]}", f"@{name[254:508]}", name[508:]]
    write(".snakemake/incomplete/" + "/".join(cut), json.dumps({"external_jobid": "17"}))
    write(".snakemake/locks/0.input.lock")
    found = now()
    assert {name: begun.slurm for name, begun in found.begun.items()} == {short: None, long: "17"}
    assert found.locked
    assert found.snakemake == {}


def test_time_left_follows_what_the_like_took(study: Study):
    done = extract()
    made(done)
    write(done.benchmark, "s\th:m:s\n40.0\t0:00:40\n")
    other = Planned("extract", {**OF, "checkpoint": "step1"}, ("x",), "Missing output files")
    found = status(study, [done, other], time.time(), Now())
    assert found.left == pytest.approx(40)
    assert summary(found) == "2 jobs: 1 done, 1 waiting; about 40.0 s left one after another"
    told = as_json(found)
    assert (told["jobs"], told["done"], told["waiting"]) == (2, 1, 1)
    assert told["steps"][0]["seconds_each"] == 40
