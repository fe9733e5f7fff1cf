"""The journal of Snakemake's runs: what is written is what is read."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from snakemake_records import OUTPUT, begun, failed, finished, planned

from blockcoupling.study.journal import JOURNAL, Journal, in_slurm, read


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*records) -> Journal:
    journal = Journal()
    for each in (planned(extract=1), *records):
        journal.note(each)
    return journal


def test_without_a_journal_nothing_is_known():
    assert (read().run, read().begun, read().failed) == (None, {}, {})


def test_a_job_that_has_begun_is_known_until_it_is_finished():
    journal = run(begun(3))
    found = read()
    assert found.begun[OUTPUT].slurm == "rule_extract_wildcards_small_step2_mine"
    assert found.begun[OUTPUT].last
    journal.note(finished(3))
    assert read().begun == {}


def test_a_run_is_alive_until_it_ends():
    journal = run()
    alive = read().run
    assert (alive.process, alive.host, alive.alive) == (os.getpid(), socket.gethostname(), True)
    # Another process with the same number, a process that is gone, another machine.
    assert not replace(alive, started=alive.started - 1).alive
    assert not replace(alive, process=2**22 + 1).alive
    assert not replace(alive, host="elsewhere").alive
    journal.close()
    assert read().run is None
    journal.close()
    assert JOURNAL.read_text().count("end") == 1


def test_a_run_that_had_no_job_to_do_leaves_no_trace():
    Journal().close()
    assert not JOURNAL.exists()


def test_a_job_of_an_earlier_run_is_not_one_of_the_last():
    run(begun(3))
    run()
    assert not read().begun[OUTPUT].last


def test_a_failure_counts_until_the_next_attempt():
    journal = run(begun(3), failed(3, rule_msg="Why: out of memory"))
    assert read().failed[OUTPUT].message == "Why: out of memory"
    assert read().begun == {}
    journal.note(begun(3))
    assert read().failed == {}
    journal.note(failed(3, rule_msg="again"))
    assert read().failed[OUTPUT].message == "again"


def test_a_line_that_a_kill_has_cut_off_is_passed_over():
    run(begun(3))
    with JOURNAL.open("a") as file:
        file.write('{"time": 3, "ev')
    assert OUTPUT in read().begun


def test_slurm_lists_a_job_by_rule_and_wildcards():
    assert in_slurm("report", {}) == "rule_report"
    assert in_slurm("x", {"a": "b/c", "d": "e"}) == "rule_x_wildcards_b_c_e"
