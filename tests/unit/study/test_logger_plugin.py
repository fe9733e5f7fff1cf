"""The logger plugin, by the tests that Snakemake gives to plugins, and as Snakemake runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.tests import MockOutputSettings, TestLogHandlerBase
from snakemake_records import begun, failed, planned, record

from blockcoupling.study.journal import JOURNAL, read
from snakemake_logger_plugin_blockcoupling import LogHandler, LogHandlerSettings

SNAKEFILE = """
rule all:
    input: "b.txt"

rule a:
    output: "{name}.txt"
    log: "{name}.log"
    message: "Make {wildcards.name}"
    shell: "sh tool.sh > {log} 2>&1; touch {output}"
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestAsSnakemakeTestsPlugins(TestLogHandlerBase):
    __test__ = True

    def get_log_handler_cls(self) -> type[LogHandlerBase]:
        return LogHandler

    def get_log_handler_settings(self) -> LogHandlerSettings:
        return LogHandlerSettings()


def test_what_slurm_says_of_a_failure_is_shown_and_noted(tmp_path: Path, capsys):
    (tmp_path / "41.log").write_text("slurmstepd: error: Detected 1 oom_kill event\n")
    handler = LogHandler(MockOutputSettings(), None)
    message = "SLURM-job '41' failed, SLURM status is: 'FAILED'."
    for each in (planned(a=1), begun(1), failed(1, rule_msg=message, log=["41.log"])):
        handler.handle(each)
    handler.close()
    (failure,) = read().failed.values()
    assert "Why: out of memory" in failure.message


def test_a_run_goes_on_when_its_journal_cannot_be_written(tmp_path: Path):
    JOURNAL.parent.mkdir()
    JOURNAL.mkdir()  # in the way
    handler = LogHandler(MockOutputSettings(), None)
    handler.handle(planned(a=1))
    handler.handle(record(None, msg="still there"))
    handler.close()


def snakemake(directory: Path, *words: str, command: str = "echo") -> subprocess.CompletedProcess:
    (directory / "Snakefile").write_text(SNAKEFILE)
    (directory / "tool.sh").write_text(f"{command}\n")
    words = ("-m", "snakemake", "--cores", "1", "--logger", "blockcoupling", *words)
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)


def test_a_run_of_snakemake_as_its_log_shows_it(here: Path):
    done = snakemake(here)
    assert done.returncode == 0
    assert "job 1: Make b" in done.stderr
    assert "2 of 2 jobs" in done.stderr
    assert (read().run, read().begun) == (None, {})


def test_a_failed_run_of_snakemake(here: Path):
    done = snakemake(here, command="echo 'error: it is full' && false")
    assert done.returncode == 1
    assert "Failed: Make b\n  The end of b.log:\n    error: it is full\n" in done.stderr
    assert "1 job failed" in done.stderr
    assert list(read().failed) == ["b.txt"]


def test_the_jobs_of_a_dry_run_are_listed_for_status(here: Path):
    done = snakemake(here, "--dry-run", "--logger-blockcoupling-jobs")
    listed = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["rule_name"] for each in listed] == ["a", "all"]
    assert listed[0]["wildcards"] == {"name": "b"}
    assert listed[0]["output"] == ["b.txt"]
    assert listed[0]["log"] == ["b.log"]
    assert "Missing output files" in listed[0]["reason"]
    assert not JOURNAL.exists()
