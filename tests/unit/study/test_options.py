"""Options of the workflow's verbs: what is in them starts jobs again, what is not does not."""

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blockcoupling.config.steps import steps
from blockcoupling.config.study import Study
from blockcoupling.study import options
from blockcoupling.study.needs import reduce_needs

TEXT = {"train": {"hidden_size": 32, "blocks": 2, "steps": 8}, "checkpoints": [0, 8]}
VIT = {"train": {"architecture": "vit", "epochs": 2, "warmup": 0}, "checkpoints": [2]}
DATASETS = {"words": {"name": "handwritten"}, "digits": {"images": {"source": "digits"}}}
JOB = {"model": "small", "checkpoint": "step8", "dataset": "words"}


def study(**sections: Any) -> Study:
    return Study(**{"models": {"small": TEXT}, "datasets": {"words": DATASETS["words"]}} | sections)


def of(name: str, **sections: Any) -> str:
    return options.options_of(study(**sections), name, JOB)


def after(line: str, option: str) -> str:
    words = shlex.split(line)
    return words[words.index(option) + 1]


def test_words_are_those_that_a_shell_takes_apart_again():
    line = options.words(k=[1, 2], title="a 'b' c", yes=True, no=False, none=None, long_name=3)
    assert shlex.split(line) == [
        *("--k", "1", "--k", "2", "--title", "a 'b' c", "--yes", "--long-name", "3")
    ]


@pytest.mark.parametrize("name", ["extract", "tokenwise", "damage", "score", "train"])
def test_a_device_starts_nothing_again(name):
    sections = {"tokenwise": {"k": 4}, "damage": {}}
    plain, moved = (of(name, extract={"device": each}, **sections) for each in ("cpu", "cuda"))
    assert plain == moved
    assert "cuda" not in moved


def test_a_setting_starts_its_jobs_again():
    assert of("extract", extract={"k": 4}) != of("extract", extract={"k": 5})
    assert of("reduce", reduce={"k": [1, 4]}) != of("reduce", reduce={"k": [4]})


def test_settings_of_damage_are_options_of_its_job():
    for section, words in (({"prompts": 3}, "--count 3"), ({"passages": 7}, "--passages 7")):
        assert words in of("damage", damage=section)


def test_settings_of_another_model_are_in_no_job_of_this_one():
    other = {"models": {"small": TEXT, "other": {**TEXT, "family": "another"}}}
    for row in steps():
        if "model" in row.per and row.wildcards(study()):
            assert of(row.name) == of(row.name, **other)


def test_facts_are_in_the_record_and_not_in_what_numbers_depend_on():
    named = {"models": {"small": {**TEXT, "family": "another"}}}
    assert of("weights") == of("weights", **named)
    assert of("model") != of("model", **named)


def test_a_store_keeps_what_it_has_beyond_the_settings(tmp_path: Path):
    assert "--swapped" not in of("extract", results=tmp_path, reduce={"variants": ["frobenius"]})
    (tmp_path / "svd/small/step8/words/svd.zarr/A_swapped").mkdir(parents=True)
    assert "--swapped" in of("extract", results=tmp_path, reduce={"variants": ["frobenius"]})


def test_a_modality_is_named_where_there_are_two():
    both = study(models={"small": TEXT, "vit": VIT}, datasets=DATASETS)
    for name in ("correlate", "figures"):
        assert "--modality" not in options.options_of(study(), name, {"modality": "text"})
        for each in ("text", "image"):
            assert after(options.options_of(both, name, {"modality": each}), "--modality") == each
    assert after(options.options_of(both, "correlate", {"modality": "image"}), "--score") == "test"


def test_entries_have_a_directory_and_what_they_are_found_by():
    line = options.entries_of(study(results="r"), "extract", JOB)
    assert after(line, "--entries") == "r/entries/small/step8/words"
    assert [each for each in shlex.split(line) if "=" in each] == [
        *("model=small", "checkpoint=step8", "dataset=words")
    ]
    line = options.entries_of(study(results="r"), "correlate", {"modality": "text"})
    assert line == "--entries r/entries/correlate/text"


def test_workers_of_a_reduction_ask_slurm_for_what_other_jobs_do():
    resources = {"slurm_partition": SimpleNamespace(raw="'cpu'")}
    rule = SimpleNamespace(resources=resources)
    workflow = SimpleNamespace(get_rule=lambda name: rule)
    on_slurm = study(reduce={"cluster": "slurm", "workers": 3}, results="r")
    line = options.reduce_engine(workflow, on_slurm, JOB, attempt=2, threads=1, alone=True)
    needs = reduce_needs(on_slurm, "small", "words")
    assert after(line, "--workers") == "3"
    assert json.loads(after(line, "--job")) == {
        "memory_mb": 2 * needs.mem_mb,
        "minutes": 2 * needs.minutes,
        "logs": "r/logs/reduce/small/step8/words.workers",
        "partition": "cpu",
    }
    here = options.reduce_engine(workflow, study(), JOB, attempt=1, threads=4, alone=True)
    assert here == "--cluster threads --workers 4"
    shared = options.reduce_engine(workflow, on_slurm, JOB, attempt=1, threads=4, alone=False)
    assert shared == "--cluster threads --workers 1"
