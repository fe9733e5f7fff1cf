"""Results of several versions of the code, or of a model that moved on the hub, are named."""

from pathlib import Path
from typing import Any

import pytest

from blockcoupling.catalog import Catalog, join, making, write_entry
from blockcoupling.catalog.mixed import mixed

FIRST, SECOND = "a" * 40, "b" * 40


def entered(root: Path, code: dict[str, Any], **model: Any) -> Path:
    number = len(list(root.glob("*.json")))
    artifact = root / f"{number}.json"
    artifact.write_text("{}")
    record = {"name": "m", "checkpoint": "main", "id": "a/b", **model}
    made = {**making.making([], {}, record), "code": code}
    file = root / f"{number}.yml"
    write_entry(file, "model", artifact, {"model": "m", "checkpoint": f"c{number}"}, made)
    return file


def joined(root: Path, *files: Path) -> Catalog:
    return join(files, root / "catalog.yml")


OLD: dict[str, Any] = {"version": "0.1.0", "commit": FIRST, "changed": False}


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ({"version": "0.2.0"}, "blockcoupling 0.2.0"),
        (OLD | {"commit": SECOND}, "blockcoupling 0.1.0, commit bbbbbbbbbbbb"),
        (OLD | {"changed": True}, "blockcoupling 0.1.0, commit aaaaaaaaaaaa, changed since"),
        ({}, "blockcoupling unknown"),
    ],
)
def test_versions_of_the_code_are_named_with_the_number_of_artifacts(
    tmp_path: Path, code: dict[str, Any], named: str
):
    same = [entered(tmp_path, OLD) for _ in range(2)]
    assert mixed(joined(tmp_path, *same)) == []
    assert mixed(joined(tmp_path, *same, entered(tmp_path, code))) == [
        "results were made by 2 versions of the code (number of artifacts): blockcoupling 0.1.0, "
        f"commit aaaaaaaaaaaa: 2; {named}: 1"
    ]


def test_a_revision_that_moved_between_two_jobs_is_named(tmp_path: Path):
    first = entered(tmp_path, OLD, revision_requested="main", revision=FIRST)
    same = entered(tmp_path, OLD, revision_requested="main", revision=FIRST, name="again")
    moved = entered(tmp_path, OLD, revision_requested="main", revision=SECOND, name="later")
    pinned = entered(tmp_path, OLD, revision_requested=SECOND, revision=SECOND)
    other = entered(tmp_path, OLD, revision_requested="main", revision=SECOND, id="c/d")
    local = entered(tmp_path, OLD)
    assert mixed(joined(tmp_path, first, same, pinned, other, local)) == []
    (said,) = mixed(joined(tmp_path, first, same, moved, pinned, other, local))
    assert said == (
        "the revision 'main' of a/b stood for 2 commits, because it moved between the jobs: "
        "aaaaaaaaaaaa: m main, again main; bbbbbbbbbbbb: later main; name a commit as `revision`"
    )
