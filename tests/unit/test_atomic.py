import subprocess
import sys

import pytest

from blockcoupling.atomic import replacing

# Writes half of the target and dies as a killed process does: without any clean-up.
KILLED = """
import os, sys
from blockcoupling.atomic import replacing
with replacing(sys.argv[1]) as fresh:
    fresh.mkdir()
    (fresh / "half").write_text("half")
    os._exit(9)
"""


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_file_and_a_directory_take_the_place_of_old_ones(tmp_path):
    for content in ("first", "second"):
        with replacing(tmp_path / "file") as fresh:
            fresh.write_text(content)
        with replacing(tmp_path / "directory") as fresh:
            fresh.mkdir()
            (fresh / content).touch()
    assert (tmp_path / "file").read_text() == "second"
    assert names(tmp_path / "directory") == ["second"]
    assert names(tmp_path) == ["directory", "file"]


def test_a_failing_writer_leaves_the_old_target_alone(tmp_path):
    target = tmp_path / "directory"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(KeyboardInterrupt), replacing(target) as fresh:
        fresh.mkdir()
        raise KeyboardInterrupt
    assert names(tmp_path) == ["directory"]
    assert names(target) == ["old"]


def test_a_killed_writer_leaves_no_target_and_no_trace_after_the_next_one(tmp_path):
    target = tmp_path / "deep" / "directory"
    killed = subprocess.run([sys.executable, "-c", KILLED, target], check=False)
    assert killed.returncode == 9
    assert names(target.parent) == [".tmp-directory"]
    with replacing(target) as fresh:
        fresh.mkdir()
        (fresh / "whole").touch()
    assert names(target.parent) == ["directory"]
    assert names(target) == ["whole"]
