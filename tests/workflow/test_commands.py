"""Every command that a rule runs is one that its verb takes, whatever the study asks for."""

import json
import re
import shlex

import pytest
import typer
from running import Workplace

from blockcoupling.cli import app
from blockcoupling.config.variants import OF_BLOCKS

EVERYTHING = {
    "models": {
        "small": {
            "train": {"hidden_size": 16, "blocks": 2, "heads": 2, "batch": 2, "steps": 2},
            "checkpoints": [0, 2],
            "init": True,
        },
        "plain": {"train": {"steps": 2}, "grid": {"seed": [0]}},
        "doses": {"train": {"steps": 2}, "grid": {"penalty.weight": [-0.1, 0.1], "seed": [0]}},
    },
    "extract": {
        **{"k": 4, "method": "krylov", "tolerance": 1e-3, "tokens": [-1, -2], "final_norm": True},
        **{"full": False, "vectors": True, "context": "full", "dtype": "float64", "batch": 2},
        **{"seed": 3, "matmul": "float32", "k_when_smaller": "d", "device": "cpu"},
    },
    "reduce": {"k": [1, 4], "variants": list(OF_BLOCKS)},
    "tokenwise": {
        **{"k": 4, "tokens": {"every": 2}, "prompts": 1, "dtype": "float64"},
        **{"seed": 4, "tolerance": 1e-3},
    },
    "damage": {
        **{"treatments": ["skip", "swap"], "pairs": [[1, 2]], "passages": 1, "window": 32},
        **{"prompts": 2, "checkpoints": "all", "batch": 2, "dtype": "float64", "k": [4]},
        **{"device": "cpu"},
    },
    "intervention": {"control": "plain", "doses": ["doses"], "smallest_effect": {"gap.loss": 0.1}},
    "correlate": {"k": 4, "bootstrap": 20, "variant": "swapped", "seed": 5},
    "figures": {"formats": ["png", "pdf", "svg"]},
}
STUDIES = {
    "everything": EVERYTHING,
    "nothing more than it must": {},
    "released": {"extract": {"k": 4, "preset": "released"}, "tokenwise": {"k": 4}},
    "damage": {"reduce": {"k": [4]}, "damage": {}},
    "every variant": {"reduce": {"k": [4], "variants": list(OF_BLOCKS)}, "tokenwise": {"k": 4}},
}


@pytest.mark.workflow
@pytest.mark.parametrize("study", STUDIES)
def test_verbs_take_what_rules_give_them(study: str, workplace: Workplace) -> None:
    workplace.configure(**STUDIES[study])
    run = workplace.snakemake("--dry-run", "--printshellcmds")
    assert run.status == 0, run.said
    called = set()
    verbs = typer.main.get_command(app)
    for line in re.findall(r"^Shell command:.*?\bblockcoupling ([a-z].*)$", run.said, re.M):
        words = shlex.split(re.split(r" (?:>|<|2>|\|) ?", line)[0])
        verb = verbs.commands[words[0]]
        verb.make_context(words[0], words[1:])  # raises where an option is none
        called.add(words[0])
    assert called >= {"prompts", "model", "extract", "reduce", "score", "correlate", "figures"}
    asked = {"tokenwise": "tokenwise", "damage": "damage", "damage-statistics": "damage"}
    asked |= {"intervention": "intervention"}
    for verb, section in asked.items():
        assert (verb in called) == (section in STUDIES[study])


@pytest.mark.workflow
def test_jobs_that_share_a_process_are_those_of_the_single_rules(workplace: Workplace) -> None:
    small = EVERYTHING["models"]["small"]
    pair = {"train": small["train"], "checkpoints": [0, 2], "grid": {"seed": [0, 1]}}
    alone = {"models": {"pair": {**pair, "together": 1}}, "weight_spectra": True}
    workplace.configure("alone.yaml", **alone)
    run = workplace.snakemake("--dry-run", "--printshellcmds", study="alone.yaml")
    expected = {
        tuple(shlex.split(line.rpartition(" > ")[0]))
        for line in re.findall(r"^Shell command: *.*?\bblockcoupling ([a-z].*)$", run.said, re.M)
        if "pair-seed" in line
    }
    shared = {**alone, "models": {"pair": {**pair, "together": 2}}, "together": {"datasets": True}}
    workplace.configure(**shared)
    planned = workplace.planned(**shared)
    assert planned["together_pair_0"] == planned["jobs"] == 1
    assert not {"train", "extract", "reduce", "score", "weight_spectra"} & set(planned)
    run = workplace.snakemake("results/seconds/together/pair_0.json", "--cores", "1")
    assert run.status == 0, run.said
    listed = json.loads((workplace.results / "together" / "pair_0.json").read_text())
    verbs = typer.main.get_command(app)
    for job in listed:
        verbs.commands[job["words"][0]].make_context(job["words"][0], list(job["words"][1:]))
    assert {tuple(job["words"]) for job in listed} == expected
    assert len(listed) == len(expected)
    assert {job["chain"] for job in listed} == {"pair-seed0", "pair-seed1"}


@pytest.mark.workflow
def test_all_datasets_of_a_checkpoint_are_measured_by_one_job(workplace: Workplace) -> None:
    assert workplace.planned()["extract"] == 6
    planned = workplace.planned(together={"datasets": True})
    assert planned["extract_together_text"] == 3
    assert "extract" not in planned


@pytest.mark.workflow
def test_models_of_images_are_measured_on_theirs(workplace: Workplace) -> None:
    images = {"source": "digits"}
    vit = {"architecture": "vit", "images": images, "patch": 4, "hidden_size": 16, "blocks": 2}
    vit |= {"heads": 2, "epochs": 2, "warmup": 0, "image_count": 128}
    both = {
        "models": {
            "small": EVERYTHING["models"]["small"],
            "vit": {"train": vit, "checkpoints": [0, 2]},
        },
        "datasets": {
            **{name: {"name": "handwritten", "prompts": 2} for name in ("mine", "more")},
            **{name: {"images": images, "prompts": 2} for name in ("digits", "again")},
        },
        "together": {"datasets": True},
    }
    planned = workplace.planned(**both)
    assert planned["extract_together_text"] == 3
    assert planned["extract_together_image"] == 2
    assert "extract" not in planned
    workplace.configure(**both)
    run = workplace.snakemake("--dry-run", "--printshellcmds")
    measured = set()
    for line in re.findall(r"^Shell command:.*?(\bblockcoupling together .*)$", run.said, re.M):
        jobs = json.loads(shlex.split(line)[2])
        said = " ".join(word for job in jobs for word in job["words"])
        measured.add(tuple(name for name in both["datasets"] if f"/{name}.jsonl" in said))
    assert measured == {("mine", "more"), ("digits", "again")}
