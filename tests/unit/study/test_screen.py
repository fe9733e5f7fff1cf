"""What a run shows: plain lines, a live line, failures with their logs, the end."""

import io
import logging
from pathlib import Path

import pytest
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_records import begun, failed, planned, progress, record

from blockcoupling.config.study import Study
from blockcoupling.study.course import Course
from blockcoupling.study.live_screen import LiveScreen
from blockcoupling.study.screen import Screen, ending


def shown(screen, course, *records) -> str:
    screen.begin()
    for each in records:
        course.note(each)
        screen.show(each, each.getMessage())
    screen.close()
    return screen._stream.getvalue()


def plain(*records) -> str:
    return shown(Screen(course := Course(), io.StringIO()), course, *records)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def live(*records, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TERM", "xterm")
    return shown(LiveScreen(course := Course(), Terminal()), course, *records)


def warning(text: str) -> logging.LogRecord:
    return logging.LogRecord("snakemake", logging.WARNING, "x.py", 1, text, (), None)


def test_a_log_has_a_line_for_each_job_that_begins_or_ends():
    said = plain(planned(extract=3), begun(7), progress(1, 3)).splitlines()
    assert said[0] == "Job stats:"
    assert [line[8:] for line in said[1:]] == [" job 7: Do extract 7", " 1 of 3 jobs"]


def test_a_failure_is_shown_with_the_end_of_its_log_and_what_to_do(tmp_path: Path):
    log = tmp_path / "x.log"
    log.write_text("measuring\nmeasuring\nerror: the disk is full; make room\n  (27 MB)\n")
    said = plain(planned(a=1), begun(7), failed(7, log=["gone.log", str(log)], rule_msg="FAILED"))
    assert said.splitlines()[-6:] == [
        f"{said.splitlines()[-6][:8]} Failed: Do extract 7",
        "  FAILED",
        f"  The end of {log}:",
        "    error: the disk is full; make room",
        "      (27 MB)",
        "1 job failed. Fix what the logs above say, then type the same command again: finished "
        "work is kept.",
    ]


def test_a_job_that_was_killed_without_a_word_is_said_to_be(tmp_path: Path):
    (tmp_path / "x.log").touch()
    said = plain(begun(7), failed(7, log=[str(tmp_path / "x.log")]))
    assert "it was killed, or ran out of memory" in said


def test_the_exception_of_a_job_is_shown_once():
    def raised(name: str) -> logging.LogRecord:
        return record(LogEvent.ERROR, msg=f"{name}: Command 'x' failed", exception=name)

    said = plain(begun(7), raised("RuleException"), raised("OSError"), failed(7))
    assert "RuleException" not in said
    assert "OSError" in said
    assert "RuleException" in plain(raised("RuleException"))  # of the workflow, before any job


def test_a_failure_that_a_retry_has_mended_is_no_failure_at_the_end():
    assert "1 job failed" not in plain(planned(a=1), begun(7), failed(7), begun(7), progress(1, 1))


def test_a_terminal_has_one_line_and_what_must_be_read(monkeypatch):
    records = [record(None, msg="Building DAG"), planned(extract=2), begun(7), begun(8)]
    records += [record(None, msg="Select jobs"), warning("mind this"), progress(2, 2)]
    said = live(*records, record(None, msg="Report: r.html"), monkeypatch=monkeypatch)
    assert said.index("Planning the jobs") < said.index("2 of 2 jobs · Do extract 8 (and 1 more)")
    assert "mind this" in said
    assert said.strip().endswith("Report: r.html")
    for chatter in ("Building DAG", "Job stats", "Select jobs"):
        assert chatter not in said


def test_a_terminal_shows_that_there_is_nothing_to_do(monkeypatch):
    assert "Nothing to be done" in live(
        record(None, msg="Nothing to be done"), monkeypatch=monkeypatch
    )


def test_snakemakes_own_words_where_they_are_asked_for():
    course = Course()
    screen = Screen(course, io.StringIO(), own_words=True)
    job = begun(7)
    job.msg = "rule extract: …"
    assert shown(screen, course, planned(extract=1), job) == "Job stats:\nrule extract: …\n"


def test_the_end_names_findings_and_what_was_made(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = Study(
        study="s",
        models={"m": {"train": {"hidden_size": 16, "blocks": 2, "heads": 2, "steps": 2}}},
        datasets={"d": {"name": "handwritten"}},
    )
    assert ending(study) == ""
    study.results.mkdir(parents=True)
    (study.results / "report.html").touch()
    (study.results / "findings.txt").write_text("one\ntwo\nthree\nfour\n")
    assert ending(study).splitlines() == ["one", "two", "three", "Report: results/s/report.html"]
