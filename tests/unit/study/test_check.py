"""Every mistake that a configuration can have gets its own clear line, all of them at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from blockcoupling.errors import UserError
from blockcoupling.study.check import load_config

ROOT = Path(__file__).parents[3]
TRAINED = {"source": "train", "train": {"hidden_size": 32, "blocks": 2, "heads": 4, "steps": 20}}


def complaint(config: dict | Path) -> str:
    with pytest.raises(UserError) as caught:
        load_config(config)
    return str(caught.value)


def model_directory(path: Path, *, weights: str = "model.safetensors", **config: object) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    (path / weights).write_bytes(b"\x02\0\0\0\0\0\0\0{}")  # safetensors without a tensor
    (path / "tokenizer.json").write_text('{"model": {}}')
    return path


def test_a_minimal_study_has_every_default() -> None:
    study = load_config({"models": {"tiny": TRAINED}})
    assert study.results == Path("results/study")
    assert study.catalog == Path("catalog/study.yml")
    assert list(study.datasets) == ["heldout", "handwritten"]
    assert study.extract.k is None
    assert study.extract.k_for(32) == 32
    assert study.extract.k_for(4096) == 50
    assert study.reduce.k == [1, 2, 5, 10, 20, 30, 50]
    assert study.correlate.k == 10
    assert study.score.metric == "nats_per_byte"


def test_defaults_follow_a_smaller_k() -> None:
    study = load_config({"models": {"tiny": TRAINED}, "extract": {"k": 8}})
    assert study.reduce.k == [1, 2, 5]
    assert study.correlate.k == 5


def test_studies_do_not_share_their_defaults() -> None:
    first = load_config({"models": {"tiny": TRAINED}, "extract": {"k": 5}, "seed": 3})
    second = load_config({"models": {"tiny": TRAINED}})
    assert first.reduce.k == [1, 2, 5]
    assert second.reduce.k[-1] == 50
    assert [d.seed for d in first.datasets.values()] == [3, 3]
    assert [d.seed for d in second.datasets.values()] == [0, 0]


@pytest.mark.parametrize(
    ("config", "counts", "of_texts", "of_images"),
    [
        ("config.yaml", (6, 4), 4, ("epoch0", "epoch2", "epoch5", "epoch10")),
        ("studies/ladder.yaml", (3, 8), 6, ("epoch0", "epoch10", "epoch30")),
    ],
)
def test_the_builtin_study_and_the_ladder_are_valid(
    config: str, counts: tuple[int, int], of_texts: int, of_images: tuple[str, ...]
) -> None:
    study = load_config(ROOT / "config" / config)
    checkpoints = {name: study.checkpoints(name) for name in study.models}
    texts = [name for name, model in study.models.items() if model.takes == "text"]
    images = [name for name, model in study.models.items() if model.takes == "image"]
    assert (len(texts), len(images)) == counts
    assert {len(checkpoints[name]) for name in texts} == {of_texts}
    assert {tuple(checkpoints[name]) for name in images} == {of_images}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"studdy": "x"}, "studdy: unknown key; did you mean study?"),
        ({"models": {}}, "models: "),
        ({"models": {"a b": TRAINED}}, "models.a b: a name has letters"),
        ({"models": {"a": {"sourc": "hub"}}}, "models.a: source is missing"),
        (
            {"models": {"a": {"source": "hubb"}}},
            "models.a: unknown source 'hubb'; did you mean hub",
        ),
        ({"models": {"a": 3}}, "models.a: should be a mapping"),
        ({"models": {"a": {"source": "hub"}}}, "models.a.id: is missing"),
        ({"models": {"a": {"id": "no such/id/here"}}}, "models.a.id: "),
        ({"models": {"a": {"source": "local"}}}, "models.a: give either path"),
        (
            {"models": {"a": {**TRAINED, "train": {"hiden_size": 8}}}},
            "models.a.train.hiden_size: unknown key; did you mean hidden_size?",
        ),
        (
            {"models": {"a": {**TRAINED, "train": {"blocks": 1}}}},
            "models.a.train.blocks: should be greater than or equal to 2 (not 1)",
        ),
        (
            {"models": {"a": {**TRAINED, "train": {"hidden_size": 50, "heads": 4}}}},
            "models.a.train: hidden_size 50 is not a multiple",
        ),
        (
            {"models": {"a": {**TRAINED, "checkpoints": [0, 21]}}},
            "models.a: checkpoints: step 21 is after the last, train.steps = 20",
        ),
        (
            {"models": {"a": {"id": "x/y", "checkpoints": ["init", "main"]}}},
            "models.a: checkpoints: the name `init` stands for re-initialised weights",
        ),
        ({"datasets": {"d": {"name": "held"}}}, "datasets.d.name: should be 'heldout' or"),
        (
            {"datasets": {"d": {"path": "x.jsonl", "template": "arc_chalenge"}}},
            "datasets.d.template: unknown template 'arc_chalenge'; did you mean arc_challenge?",
        ),
        ({"datasets": {"d": {"id": "x/y", "template": "text"}}}, "datasets.d.revision: is missing"),
        (
            {"datasets": {"d": {"name": "heldout", "prompts": 10_000}}},
            "but 10000 are requested; lower `prompts`",
        ),
        ({"extract": {"k": 0}}, "extract.k: should be greater than 0 (not 0)"),
        ({"extract": {"tokens": "lats"}}, "extract.tokens: should be last, all, {every: n}"),
        ({"extract": {"tokens": [[1, 2, 3]]}}, "extract.tokens: should be last"),
        ({"extract": {"tokens": {"every": 0}}}, "extract.tokens: should be last"),
        (
            {"extract": {"k": 8}, "reduce": {"k": [1, 9]}},
            "reduce.k: 9 is larger than extract.k = 8",
        ),
        ({"reduce": {"k": [1, 9]}, "correlate": {"k": 5}}, "correlate.k: 5 is not in reduce.k"),
        ({"reduce": {"variants": ["swapped"]}}, "correlate.variant: frobenius is not in"),
        ({"score": {"name": "heldot"}}, "no score 'heldot' is evaluated or recorded; did you mean"),
        ({"score": {"harness": {"arc": {"path": "x"}}}}, "a local file needs a template"),
        (
            {
                "models": {
                    "a": {
                        **TRAINED,
                        "scores": {"s": {"value": 1, "source": "page", "checkpoint": "step2"}},
                    }
                }
            },
            "models.a.scores.s.checkpoint: no such checkpoint",
        ),
    ],
)
def test_each_mistake_is_named_with_its_place(change: dict, words: str) -> None:
    assert words in complaint({"models": {"tiny": TRAINED}} | change)


def test_all_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"text": "a"}\n{"text": \n{"txt": "b"}\n{"text": "  "}\n')
    config = {
        "models": {"a": {"path": str(tmp_path / "nowhere")}, "b": {"sorce": "hub", "id": "x/y"}},
        "datasets": {"d": {"path": str(prompts)}},
        "extract": {"k": "many"},
    }
    lines = complaint(config).splitlines()
    assert lines[0] == "the configuration has 6 mistakes:"
    for place, line in [
        ("models.b.sorce: unknown key", 1),
        ("extract.k: should be a valid integer", 2),
        (f"models.a: there is no directory {tmp_path / 'nowhere'}", 3),
        (f"datasets.d: {prompts}, line 2: not JSON", 4),
        (f"datasets.d: {prompts}, line 3: no text", 5),
        (f"datasets.d: {prompts}, line 4: empty prompt", 6),
    ]:
        assert place in lines[line]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models: [", "is not YAML"),
        ("models:\n  a: {source: train}\n  a: {source: train}\n", "'a' is given twice"),
        ("just words", "holds no configuration"),
        ("", "holds no configuration"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    message = complaint(file)
    assert words in message
    assert str(file) in message


def test_a_missing_file(tmp_path: Path) -> None:
    assert "cannot read the configuration" in complaint(tmp_path / "none.yaml")


def test_yaml_merge_keys_are_no_duplicates(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "models:\n  a: &a {source: train, train: {steps: 9}}\n  b: {<<: *a, family: neox}\n"
    )
    study = load_config(file)
    assert study.train_spec("b")["steps"] == 9


def test_k_beyond_the_dimension_where_it_is_known(tmp_path: Path) -> None:
    local = model_directory(tmp_path / "m", n_embd=24, n_layer=3)
    config = {"models": {"tiny": TRAINED, "mine": {"path": str(local)}}, "extract": {"k": 40}}
    message = complaint(config)
    assert "extract.k: 40 is larger than the dimension 32 of models.tiny" in message
    assert "extract.k: 40 is larger than the dimension 24 of models.mine" in message
    config["extract"] = {"k": 40, "k_when_smaller": "d"}
    assert load_config(config).extract.k_for(24) == 24


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"hidden_size": 64, "num_hidden_layers": 1}, "1 block: coupling is between blocks"),
        ({"weights": "other.bin", "hidden_size": 64}, "no model*.safetensors"),
        ({"weights": "pytorch_model.bin", "hidden_size": 64}, "a pickle"),
    ],
)
def test_local_models_that_cannot_be_measured(tmp_path: Path, content: dict, words: str) -> None:
    directory = model_directory(tmp_path / "m", **content)
    assert words in complaint({"models": {"mine": {"path": str(directory)}}})


def test_pickles_are_read_where_allowed(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "m", weights="pytorch_model.bin", hidden_size=64)
    load_config({"models": {"mine": {"path": str(directory), "allow_pickle": True}}})


def test_a_directory_without_a_model(tmp_path: Path) -> None:
    assert "no config.json" in complaint({"models": {"mine": {"path": str(tmp_path)}}})
    (tmp_path / "config.json").write_text("{")
    assert "config.json cannot be read" in complaint({"models": {"mine": {"path": str(tmp_path)}}})


def test_a_directory_without_a_tokenizer(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "m", hidden_size=64)
    (directory / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    config = {"models": {"mine": {"path": str(directory)}}}
    assert f"models.mine: there is no tokenizer in {directory}" in complaint(config)
    config["models"]["mine"]["tokenizer"] = str(tmp_path)
    load_config(config)


def test_every_checkpoint_directory_is_looked_at(tmp_path: Path) -> None:
    good = model_directory(tmp_path / "good", hidden_size=64, num_hidden_layers=2)
    places = {"step0": str(good), "main": str(tmp_path / "bad")}
    message = complaint({"models": {"mine": {"source": "local", "checkpoints": places}}})
    assert f"no directory {tmp_path / 'bad'}" in message
    assert "1 mistake" in message


def test_prompts_longer_than_the_context_of_a_model_trained_here(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    # 20 characters, 21 bytes: the tokens of a model trained here are bytes.
    file.write_text('{"id": "long", "text": "nineteen letters. é!"}\n{"id": "short", "text": "a"}')
    model = {"source": "train", "train": {**TRAINED["train"], "context": 20}}
    config = {"models": {"tiny": model}, "datasets": {"d": {"path": str(file)}}}
    message = complaint(config)
    assert "more bytes than models.tiny.train.context = 20: long (21)" in message
    model["train"]["context"] = 21
    load_config(config)


def test_reading_a_configuration_loads_no_torch() -> None:
    code = (
        "import sys; from blockcoupling.study.check import load_config;"
        "load_config({'models': {'a': {'source': 'train'}}});"
        "assert not {'torch', 'transformers', 'datasets', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_broken_files_of_models_are_told_from_their_headers(tmp_path: Path) -> None:
    half = model_directory(tmp_path / "half")
    (half / "model.safetensors").write_bytes(b"\x09\0\0\0\0\0\0\0{}")
    pointer = model_directory(tmp_path / "pointer")
    (pointer / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    spoiled = model_directory(tmp_path / "spoiled")
    (spoiled / "tokenizer.json").write_text("{")
    pair = model_directory(tmp_path / "pair", is_encoder_decoder=True)
    message = complaint(
        {"models": {p.name: {"path": str(p)} for p in (half, pointer, spoiled, pair)}}
    )
    assert "4 mistakes" in message
    assert "models.half: " in message
    assert "is not a complete safetensors file" in message
    assert "Git LFS pointer" in message
    assert "tokenizer.json is not a tokenizer" in message
    assert "is an encoder-decoder (model_type llama)" in message
