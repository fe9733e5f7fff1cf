"""Errors of the system are one sentence: the path, and what to do."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blockcoupling.atomic import replacing
from blockcoupling.errors import UserError, system_error, system_sentence

VERB = [sys.executable, "-m", "blockcoupling"]


class LibraryError(Exception):
    """As a library raises one of its own kind."""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_that_cannot_be_written_is_named(number: int, wrapped: bool, tmp_path: Path) -> None:
    target = tmp_path / "table.parquet"
    target.write_text("as it was")

    def fail() -> None:
        raise OSError(number, os.strerror(number))  # as write() does: it knows no name

    def fail_in_a_library() -> None:
        try:
            fail()
        except OSError as error:
            raise LibraryError("could not serialize") from error

    sentence = rf"^cannot write {target}: {os.strerror(number)}; .*writ"
    with pytest.raises(UserError, match=sentence), replacing(target) as fresh:
        fresh.write_text("half")
        (fail_in_a_library if wrapped else fail)()
    assert target.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "words",
    [
        "I/O error: No space left on device (os error 28)",
        "[enforce fail] . No space left on device",
    ],
)
def test_words_of_a_library_that_writes_itself(words: str) -> None:
    found = system_error(LibraryError(words))
    assert found is not None
    assert found.errno == errno.ENOSPC
    assert "free some room" in system_sentence(found, "/a/b")


def test_what_is_not_the_systems_stays() -> None:
    assert system_error(ValueError("no such thing")) is None


def test_an_error_about_what_was_read_keeps_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), replacing(tmp_path / "out"):
        (tmp_path.parent / "elsewhere").read_text()


def test_a_target_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot write .*/file/out: .*choose another path"),
        replacing(tmp_path / "file" / "out"),
    ):
        pass


def run(*words: object, limit: int | None = None, **environment: str) -> tuple[int, str]:
    """A verb in a process of its own, with a limit on the size of files."""
    import resource

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    ran = subprocess.run(
        [*VERB, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=limited,
        env=os.environ | environment,
        check=False,
    )
    return ran.returncode, ran.stderr


def test_a_disk_too_small_for_a_verbs_file(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"id": "a", "text": "' + "word " * 400 + '"}\n')
    out = tmp_path / "out.jsonl"
    section = f'{{"source": "jsonl", "path": "{tmp_path}/p.jsonl"}}'
    code, said = run("prompts", "--spec", section, "--out", out, limit=500)
    assert (code, len(said.strip().splitlines())) == (2, 1), said
    assert said.startswith(f"error: cannot write {out}: File too large; ")


@pytest.mark.parametrize("method", ["dense", "krylov"])
def test_no_temporary_directory(method: str, tmp_path: Path) -> None:
    from tiny_model import save_tiny_model

    model = save_tiny_model(tmp_path / "model")
    nowhere = str(tmp_path / "p.jsonl")
    (tmp_path / "p.jsonl").write_text("")
    words = ["measure", model, "a b c", "--k", "4", "--method", method, "--out", tmp_path / "o"]
    code, said = run(
        *words,
        limit=100,
        TMPDIR=nowhere,
        TEMP=nowhere,
        TMP=nowhere,
        HOME=nowhere,
        MPLCONFIGDIR=str(tmp_path),
    )
    assert code == 2, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: "), said
    assert "Traceback" not in said
