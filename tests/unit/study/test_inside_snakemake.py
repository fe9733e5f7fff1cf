"""What the workflow reads of Snakemake without a public interface is still there."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from blockcoupling.errors import UserError
from blockcoupling.study import inside_snakemake

SNAKEFILE = """
import dataclasses, json, sys
from blockcoupling.study import inside_snakemake as inside

configfile: "own.yaml"

rule all:
    input: expand("{name}.txt", name=["a", "b"])

rule make:
    output: "{name}.txt"
    log: "logs/{name}.log"
    benchmark: "took/{name}.tsv"
    resources:
        slurm_partition="'fast'",
        mem_mb=10,
    params:
        options=lambda wildcards: "--of " + wildcards.name,
    shell: "touch {output} {params.options} > {log}"

if inside.in_main_process(workflow):
    json.dump({
        "files": [str(each) for each in inside.configuration_files(workflow)],
        "words": inside.configuration_words(workflow),
        "main": inside.in_main_process(workflow),
        "node": inside.on_a_node(workflow),
        "set": {
            each: {name: str(value) for name, value in of.items()}
            for each, of in inside.set_resources(workflow).items()
        },
        "partition": inside.resource_of_rule(workflow, "make", "slurm_partition"),
        "account": inside.resource_of_rule(workflow, "make", "slurm_account"),
        "job": dataclasses.asdict(inside.job_of_rule(workflow, "make", {"name": "b"})),
    }, open("inside.json", "w"))
"""


def test_snakemake_still_gives_all_of_it(tmp_path: Path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    for name in ("own.yaml", "given.yaml", "more.yaml"):
        (tmp_path / name).write_text("x: 1\n")
    words = ["--dry-run", "--configfile", "given.yaml", "more.yaml"]
    words += ["--config", "seed=3", "extract={k: [1, 2]}", "name='a b'", "yes=True", "empty="]
    words += ["--set-resources", "make:mem_mb=300"]
    ended = subprocess.run(
        [sys.executable, "-m", "snakemake", *words, "make:runtime=5 * attempt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    changed = f"snakemake {version('snakemake')} has changed; see study/inside_snakemake.py: "
    assert ended.returncode == 0, changed + ended.stdout + ended.stderr
    found = json.loads((tmp_path / "inside.json").read_text())
    assert [Path(each).name for each in found["files"]] == ["given.yaml", "more.yaml"], changed
    assert found["words"] == [
        *("--configfile", "given.yaml", "more.yaml"),
        *("--config", "seed=3", 'extract={"k": ["1", "2"]}', 'name="a b"', "yes=True", "empty="),
    ], changed
    assert (found["main"], found["node"]) == (True, False), changed
    assert found["set"] == {"make": {"mem_mb": "300", "runtime": "5 * attempt"}}, changed
    assert (found["partition"], found["account"]) == ("fast", None), changed
    assert found["job"] == {
        "command": "touch b.txt --of b > logs/b.log",
        "log": "logs/b.log",
        "benchmark": "took/b.tsv",
    }, changed


def test_what_is_gone_is_named_with_the_version_and_the_file():
    with pytest.raises(UserError, match=r"snakemake 9\S* no longer gives .*inside_snakemake\.py"):
        inside_snakemake.in_main_process(SimpleNamespace())
