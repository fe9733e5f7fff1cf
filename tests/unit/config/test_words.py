"""Words of a configuration that YAML takes for something else: a field gets what it is about."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from blockcoupling.config.yaml_file import as_written, meant, read_yaml
from blockcoupling.errors import UserError
from blockcoupling.study.check import load_config

WORDS = [
    *("1234567", "0001000", "1e10", "12_34", "0x10", "1_000", "12:30:00", "3.10"),
    *("on", "off", "yes", "no", "True", "2024-01-01", ".inf", "1e5", "0o17"),
]
NAMES = [word for word in WORDS if word[0] != "." and ":" not in word]


@pytest.fixture
def write(tmp_path: Path) -> Any:
    (tmp_path / "p.jsonl").write_text('{"id": "a", "text": "b"}\n')

    def write(models: str, datasets: str = "p", rest: str = "") -> Path:
        path = tmp_path / "study.yaml"
        where = f"{{path: {tmp_path}/p.jsonl}}"
        path.write_text(
            f"study: s\nresults: {tmp_path}/r\ncatalog: {tmp_path}/c\n{rest}\n"
            f"models:\n{models}\ndatasets:\n  {datasets}: {where}\n"
        )
        return path

    return write


def both_ways(path: Path) -> list[Any]:
    """The study from its file, and as Snakemake hands it over: read by a YAML of its own."""
    return [
        load_config(path),
        load_config(yaml.safe_load(path.read_text()), written_in=[path]),
    ]


@pytest.mark.parametrize("word", WORDS)
def test_a_revision_is_text(word: str, write: Any) -> None:
    for study in both_ways(write(f"  m: {{id: x/y, revision: {word}}}")):
        assert study.model_spec("m", "main")["revision"] == word


@pytest.mark.parametrize("word", NAMES)
def test_names_are_text(word: str, write: Any) -> None:
    model = f"  {word}: {{id: x/y, checkpoints: [{word}, main], family: {word}}}"
    for study in both_ways(write(model, datasets=word)):
        assert list(study.models) == [word]
        assert list(study.datasets) == [word]
        assert study.model_spec(word, word)["revision"] == word
        assert study.model_spec(word, word)["family"] == word


@pytest.mark.parametrize("word", NAMES)
def test_named_revisions_are_text(word: str, write: Any) -> None:
    for study in both_ways(write(f"  m: {{id: x/y, checkpoints: {{{word}: {word}}}}}")):
        assert study.model_spec("m", word)["revision"] == word


@pytest.mark.parametrize("word", NAMES)
def test_words_of_a_file_of_models_are_text(word: str, write: Any, tmp_path: Path) -> None:
    suite = tmp_path / "models.yaml"
    suite.write_text(f"models:\n  {word}: {{id: x/y, revision: {word}, tokens: 3e9}}\n")
    for study in both_ways(write(f"  {word}:", rest=f"suite: {suite}")):
        assert study.model_spec(word, "main")["revision"] == word
        assert study.model_spec(word, "main")["tokens"] == 3_000_000_000


def test_numbers_and_truths_are_what_they_are(write: Any) -> None:
    facts = "facts: {rate: 6e-4, table: {parameters: 70e6}, open: yes}"
    for study in both_ways(write(f"  m: {{id: x/y, tokens: 6.9e+9, base: on, {facts}}}")):
        spec = study.model_spec("m", "main")
        assert (spec["tokens"], spec["base"]) == (6_900_000_000, True)
        assert spec["facts"] == {"rate": 6e-4, "table": {"parameters": 70e6}, "open": True}


def test_what_is_changed_on_the_command_line_counts(write: Any) -> None:
    path = write("  m: {id: x/y, revision: 0001000, tokens: 1e9}")
    data = yaml.safe_load(path.read_text())
    data["models"]["m"] |= {"tokens": 5, "revision": "other"}
    spec = load_config(data, written_in=[path]).model_spec("m", "main")
    assert (spec["revision"], spec["tokens"]) == ("other", 5)


def test_a_file_that_begins_with_a_mark(write: Any) -> None:
    path = write("  m: {id: x/y}")
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    assert load_config(path).study == "s"


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "yes", "true", "on", "1e400"])
@pytest.mark.parametrize("field", ["value", "standard_error"])
def test_a_score_that_is_no_number(value: str, field: str, write: Any) -> None:
    score = {"value": "0.5", "source": "a paper"} | {field: value}
    written = ", ".join(f"{key}: {word}" for key, word in score.items())
    path = write(f"  m: {{id: x/y, scores: {{mmlu: {{{written}}}}}}}")
    with pytest.raises(UserError, match=rf"models\.m\.scores\.mmlu\.{field}: .*number"):
        load_config(path)


@pytest.mark.parametrize(
    ("section", "field"),
    [
        ("extract: {tolerance: .nan}", "tolerance"),
        ("extract: {tolerance: yes}", "tolerance"),
        ("extract: {k: on}", "k"),
        ("extract: {batch: true}", "batch"),
        ("seed: yes", "seed"),
    ],
)
def test_a_setting_that_is_no_number(section: str, field: str, write: Any) -> None:
    with pytest.raises(UserError, match=f"{field}.*number"):
        load_config(write("  m: {id: x/y}", rest=section))


@pytest.mark.parametrize("rate", ["yes", ".nan", ".inf"])
def test_a_learning_rate_that_is_no_number(rate: str, write: Any) -> None:
    train = f"{{hidden_size: 64, layers: 2, heads: 2, learning_rate: {rate}}}"
    with pytest.raises(UserError, match=r"learning_rate.*number"):
        load_config(write(f"  m: {{train: {train}}}"))


@given(st.dictionaries(st.text("abcdef", min_size=1), st.sampled_from(WORDS), min_size=1))
def test_values_are_those_of_yaml(words: dict[str, str]) -> None:
    text = "\n".join(f"k{key}: {word}" for key, word in words.items())
    path = Path(__file__).parent / "never-written"
    known = yaml.safe_load(text)
    read = read_text(text, path)
    assert as_written(known, read) == read
    found = meant(read)
    for key, value in known.items():
        if isinstance(value, float) and math.isnan(value):
            continue
        # 1e5 is text to YAML 1.1, and a number here.
        assert found[key] == (float(value) if value in ("1e10", "1e5") else value)


def read_text(text: str, path: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_text", lambda *_, **__: text)
        return read_yaml(path, "test")
