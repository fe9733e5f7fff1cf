"""What a study tells its jobs."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from tiny_model import save_tiny_model

from blockcoupling.config.measurement import Extract
from blockcoupling.config.models import step_of
from blockcoupling.config.questions import TEMPLATES
from blockcoupling.config.section import Section
from blockcoupling.config.study import Study
from blockcoupling.study.check import load_config

MODELS = {
    "trained": {
        "source": "train",
        "train": {"hidden_size": 32, "blocks": 2, "steps": 100},
        "family": "neox",
        "init": True,
        "init_seed": 7,
    },
    "hub": {
        "id": "EleutherAI/pythia-70m",
        "revision": "step143000",
        "checkpoints": ["step0", "step1000", "main"],
        "init": True,
        "quantization": "nf4",
        "scores": {"board": {"value": 30.5, "source": "a page", "metric": "average"}},
    },
    "pinned": {"id": "x/y", "revision": "abc", "tokens": 300_000_000_000},
}


@pytest.fixture
def study() -> Study:
    return load_config({"models": MODELS, "results": "out"})


def test_checkpoints_in_order_of_training(study) -> None:
    trained = ["init", "step0", "step1", "step4", "step16", "step64", "step100"]
    assert study.checkpoints("trained") == trained
    assert study.checkpoints("hub") == ["init", "step0", "step1000", "main"]
    assert study.checkpoints("pinned") == ["main"]


def test_jobs_are_all_combinations_in_order(study) -> None:
    jobs = list(study.jobs())
    assert len(jobs) == len(set(jobs)) == (7 + 4 + 1) * 2
    assert jobs[:2] == [("trained", "init", "heldout"), ("trained", "init", "handwritten")]


def test_specs_say_where_each_checkpoint_is(study) -> None:
    spec = study.model_spec("trained", "step16")
    assert (spec["path"], spec["step"], spec["init_seed"]) == (
        "out/checkpoints/trained/step16",
        16,
        None,
    )
    # Re-initialised weights have the configuration of all checkpoints: that of the first is taken,
    # which is there whichever are asked for.
    spec = study.model_spec("trained", "init")
    assert (spec["path"], spec["step"], spec["init_seed"]) == (
        "out/checkpoints/trained/step0",
        None,
        7,
    )
    assert study.model_spec("hub", "step1000")["revision"] == "step1000"
    assert study.model_spec("hub", "step1000")["quantization"] == "nf4"
    assert study.model_spec("hub", "init")["revision"] == "step143000"
    assert study.model_spec("hub", "init")["quantization"] is None
    assert study.model_spec("pinned", "main")["revision"] == "abc"


def test_tokens_are_those_that_a_checkpoint_has_seen(study) -> None:
    assert study.model_spec("pinned", "main")["tokens"] == 300_000_000_000
    model = {"id": "x/y", "checkpoints": ["step0", "step10", "main"], "init": True, "tokens": 50}

    def tokens(**more: int) -> list[int | None]:
        seen = load_config({"models": {"m": model | more}})
        return [seen.model_spec("m", name)["tokens"] for name in seen.checkpoints("m")]

    assert tokens() == [None, None, None, 50]
    assert tokens(tokens_per_step=4) == [None, 0, 40, 50]


def test_weights_that_are_not_in_files_are_not_streamed() -> None:
    models = {
        "plain": {"id": "x/y", "init": True},
        "rounded": {"id": "x/y", "quantization": "nf4", "init": True},
    }
    for stream in (True, False):
        study = load_config({"models": models, "extract": {"stream": stream}})
        streamed = {(m, c) for m in models for c in study.checkpoints(m) if study.streams(m, c)}
        assert streamed == ({("plain", "main")} if stream else set())


def test_specs_are_json(study) -> None:
    specs = [study.model_spec(m, c) for m in study.models for c in study.checkpoints(m)]
    specs += [study.score_spec(m, c) for m in study.models for c in study.checkpoints(m)]
    specs += [study.dataset_spec(d) for d in study.datasets] + [study.train_spec("trained")]
    for spec in specs:
        assert json.loads(json.dumps(spec)) == spec


def test_another_model_changes_no_spec_of_the_others(study) -> None:
    more = load_config({"models": MODELS | {"new": {"id": "a/b"}}, "results": "out"})
    for model in study.models:
        for checkpoint in study.checkpoints(model):
            assert more.model_spec(model, checkpoint) == study.model_spec(model, checkpoint)
            assert more.score_spec(model, checkpoint) == study.score_spec(model, checkpoint)
    assert more.train_spec("trained") == study.train_spec("trained")


def test_a_recorded_score_belongs_to_the_last_checkpoint_and_remeasures_nothing(study) -> None:
    assert study.score_spec("hub", "step1000")["recorded"] == {}
    assert study.score_spec("hub", "main")["recorded"]["board"]["value"] == 30.5
    assert "scores" not in study.model_spec("hub", "main")


def test_the_metric_of_a_recorded_score_is_its_own() -> None:
    config = {"models": {"hub": MODELS["hub"]}, "score": {"name": "board"}}
    assert load_config(config).score.metric == "average"


@pytest.mark.parametrize(
    "tokens", ["last", "all", [0, -1], [[0, 3], [-2, -1]], [1, [0, 1]], {"every": 4}]
)
def test_forms_of_tokens(tokens: object) -> None:
    assert Extract(tokens=tokens).tokens == tokens


@pytest.mark.parametrize(
    ("name", "step"), [("step0", 0), ("step143000", 143000), ("main", None), ("xstep3", None)]
)
def test_steps_are_read_from_names(name: str, step: int | None) -> None:
    assert step_of(name) == step


def sections(kind: type[Section]) -> set[type[Section]]:
    own = [each for each in kind.__subclasses__() if each.__module__.startswith("blockcoupling.")]
    return {kind}.union(*(sections(each) for each in own))


def test_every_key_and_template_is_documented() -> None:
    docs = Path(__file__).parents[3] / "docs"
    text = (docs / "adding-models.md").read_text()
    words = set(re.findall(r"\w+", text + (docs / "vision.md").read_text()))
    for section in sections(Section):
        assert set(section.model_fields) <= words, section
    assert all(f"| `{name}` |" in text for name in TEMPLATES)
    for name in Extract.model_fields:
        assert f"| `extract.{name}` |" in text


def test_the_documented_studies_are_in_order(tmp_path: Path, monkeypatch) -> None:
    text = (Path(__file__).parents[3] / "docs" / "adding-models.md").read_text()
    (tmp_path / "prompts.jsonl").write_text('{"text": "a"}\n')
    row = {"question": "Why?", "choices": ["a", "b"], "answer": 1}
    (tmp_path / "arc_challenge.jsonl").write_text(f"{json.dumps(row)}\n" * 200)
    model = save_tiny_model(tmp_path / "models" / "my-model")
    for place in ("run/0", "run/500", "run/final", "run/tokenizer"):
        shutil.copytree(model, tmp_path / place)
    (tmp_path / "config").mkdir()
    shutil.copy(Path(__file__).parents[3] / "config" / "models.yaml", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        load_config({"models": {"a": {"id": "x/y"}}} | yaml.safe_load(block))
