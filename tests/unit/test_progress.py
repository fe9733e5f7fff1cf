"""Logs get plain lines, few of them; a terminal gets a bar."""

import sys

import pytest

from blockcoupling.progress import Progress


@pytest.mark.parametrize(("total", "lines"), [(3, 3), (10, 10), (1000, 10)])
def test_a_log_gets_few_plain_lines(total: int, lines: int, capsys) -> None:
    with Progress(total, "training", "step") as progress:
        for step in range(total):
            progress.advance(f"loss {step}")
    written = capsys.readouterr().err.splitlines()
    assert len(written) == lines
    assert written[-1] == f"training: step {total} of {total}, loss {total - 1}"
    assert not any("\r" in line for line in written)


def test_work_done_before_counts(capsys) -> None:
    with Progress(4, "measuring", done=2) as progress:
        progress.advance()
    assert capsys.readouterr().err == "measuring: prompt 3 of 4\n"


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(2, "training", "step") as progress:
        progress.advance("loss 1")
        progress.advance("loss 0")
    written = capsys.readouterr().err
    assert "\r" in written
    assert "2/2" in written
