"""The studies that come with the project are in order as they are, without a network."""

from pathlib import Path

import pytest

from blockcoupling.config.models import HubModel, TrainedModel
from blockcoupling.study.check import load_config

ROOT = Path(__file__).parents[3]
NAMES = (
    *("ladder", "damage", "intervention", "intervention-depth", "paper", "smollm2", "sweep"),
    *("vit", "vit-small", "gap", "accuracy", "displacement", "pythia", "halves"),
)
STUDIES = ["config/config.yaml", *(f"config/studies/{name}.yaml" for name in NAMES)]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # the paths in them are taken from there
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # any request to the hub fails


def test_no_study_is_left_out() -> None:
    assert sorted(Path("config/studies").glob("*.yaml")) == sorted(map(Path, STUDIES[1:]))


@pytest.mark.parametrize("study", STUDIES)
def test_it_is_in_order(study: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # One asks for files of CIFAR-10, which do not come with the project.
    monkeypatch.setattr("blockcoupling.study.check.load_image_prompts", lambda spec: [])
    assert list(load_config(study).jobs())


def test_the_small_real_study_has_every_kind_of_model_and_all_benchmarks() -> None:
    study = load_config("config/studies/smollm2.yaml")
    real = [model for model in study.models.values() if isinstance(model, HubModel)]
    assert {model.quantization for model in real} == {None, "nf4", "nf4-double", "int8"}
    assert study.checkpoints("smollm2") == ["init", "main"]
    trained = [model for model in study.models.values() if isinstance(model, TrainedModel)]
    built_in = load_config("config/studies/ladder.yaml")
    ladder = {name: model for name, model in built_in.models.items() if model.family == "neox"}
    assert {name: study.checkpoints(name) for name in ladder} == {
        name: built_in.checkpoints(name) for name in ladder
    }
    for model, usual in zip(trained, ladder.values(), strict=True):
        shape = {"context", "batch"}
        assert isinstance(usual, TrainedModel)
        assert model.train.model_dump(exclude=shape) == usual.train.model_dump(exclude=shape)
    paper = load_config("config/studies/paper.yaml")
    assert {name: data.id for name, data in study.datasets.items()} == {
        name: data.id for name, data in paper.datasets.items()
    }
