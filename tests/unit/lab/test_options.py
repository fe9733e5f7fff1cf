"""Options of the laboratory's verbs."""

import json
import shlex

from blockcoupling.config.study import Study
from blockcoupling.lab import options
from blockcoupling.study.check import load_config

TEXT = {"train": {"hidden_size": 32, "blocks": 2, "steps": 8}, "checkpoints": [0, 8]}


def study(**sections):
    return Study(**{"models": {"small": TEXT}} | sections)


def spec(line: str) -> dict:
    words = shlex.split(line)
    return json.loads(words[words.index("--spec") + 1])


def test_which_checkpoints_are_kept_starts_no_training_again():
    more = study(models={"small": {**TEXT, "checkpoints": [0, 4, 8]}})
    assert options.train(study(), "small") == options.train(more, "small")
    assert options.kept_states(study(), "small") == "--checkpoints 0,8"
    assert options.kept_states(more, "small") == "--checkpoints 0,4,8"


def test_a_checkpoint_is_one_of_its_training():
    training = spec(options.train(study(), "small"))
    assert spec(options.checkpoint(study(), "small", "step8")) == {**training, "checkpoints": [8]}


def test_damage_is_measured_on_some_prompts():
    damaging = study(damage={"prompts": 3, "treatments": ["skip"], "k": [5]})
    words = shlex.split(options.damage(damaging, "small", "step8", "heldout"))
    assert words[words.index("--count") + 1] == "3"
    assert json.loads(words[words.index("--treatments") + 1]) == ["skip"]
    words = shlex.split(options.damage_statistics(damaging))
    assert words[words.index("--also") + 1] == "5"


def test_the_arms_are_those_of_the_study():
    pair = {**TEXT, "grid": {"seed": [0, 1]}}
    config = {
        "models": {
            "plain": pair,
            "doses": {**pair, "grid": {"penalty.weight": [0.1], "seed": [0, 1]}},
        },
        "intervention": {"control": "plain", "doses": ["doses"]},
    }
    arms = spec(options.intervention(load_config(config)))
    assert (arms["control"], arms["doses"]) == ("plain", ["doses"])
