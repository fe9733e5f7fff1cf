"""Models taken by name from a list of them, and the list of the paper's models."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from blockcoupling.errors import UserError
from blockcoupling.sources.suite import contradictions, differences, read_suite
from blockcoupling.study.check import load_config

ROOT = Path(__file__).parents[3]
LISTED = read_suite(ROOT / "config" / "models.yaml").models
IN_TABLE = {name: m for name, m in LISTED.items() if "table" in m["facts"]}


@pytest.fixture
def suite(tmp_path: Path) -> str:
    file = tmp_path / "models.yaml"
    models = {
        "alpha": {"id": "x/alpha", "family": "greek", "tokens": 7},
        "beta": {"id": "x/beta", "checkpoints": ["step1", "step2"]},
    }
    file.write_text(yaml.safe_dump({"models": models}))
    return str(file)


def complaint(config: dict) -> str:
    with pytest.raises(UserError) as caught:
        load_config(config)
    return str(caught.value)


# ---------------------------------------------------------------------------------- taking models


@pytest.mark.parametrize("models", [["beta", "alpha"], {"beta": None, "alpha": None}])
def test_models_are_taken_by_name_in_the_order_of_the_study(suite, models):
    study = load_config({"suite": suite, "models": models})
    assert list(study.models) == ["beta", "alpha"]
    assert study.checkpoints("beta") == ["step1", "step2"]
    assert study.model_spec("alpha", "main")["id"] == "x/alpha"
    assert study.model_spec("alpha", "main")["family"] == "greek"


def test_keys_of_the_study_replace_those_of_the_list(suite):
    changed = {"checkpoints": ["step2"], "init": True}
    study = load_config({"suite": suite, "models": {"beta": changed, "alpha": {"tokens": 8}}})
    assert study.checkpoints("beta") == ["init", "step2"]
    assert study.models["beta"].id == "x/beta"
    assert study.models["alpha"].tokens == 8


def test_models_of_its_own_stand_beside_and_before_the_list(suite):
    models = {"alpha": {"id": "y/other"}, "mine": {"train": {"steps": 3}}, "beta": None}
    study = load_config({"suite": suite, "models": models})
    assert study.models["alpha"].id == "y/other"
    assert study.models["alpha"].family is None
    assert study.models["mine"].train.steps == 3


def test_a_model_more_in_the_list_changes_nothing_for_a_study(suite):
    config = {"suite": suite, "models": ["alpha"]}
    before = load_config(config).model_spec("alpha", "main")
    text = Path(suite).read_text()
    Path(suite).write_text(text + "  gamma: {id: x/gamma}\n")
    assert load_config(config).model_spec("alpha", "main") == before


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"models": ["alpha", "betta"]}, "models.betta: is not in {suite}; did you mean beta?"),
        ({"models": {"zz": None, "alpha": None}}, "models.zz: is not in {suite}; it can be alpha"),
        ({"models": {"alpa": {"tokens": 3}}}, "models.alpa: is not in {suite}; did you mean alpha"),
        ({"models": {"alpha": {"tokns": 3}}}, "models.alpha.tokns: unknown key; did you mean tok"),
        ({"models": {"alpha": 3}}, "models.alpha: should be a mapping"),
        ({"models": "alpha"}, "models: should be a valid dictionary"),
        ({"models": ["alpha"], "suite": None}, "suite: config/models.yaml"),
        ({"models": ["alpha"], "suite": "none.yaml"}, "suite: cannot read the list of models none"),
        ({"models": ["alpha"], "suite": 3}, "suite: "),
    ],
)
def test_each_mistake_is_named(suite, config, words):
    message = complaint({"suite": suite} | config)
    assert words.format(suite=suite) in message


def test_a_wrong_name_is_complained_about_once_and_with_the_other_mistakes(suite):
    message = complaint({"suite": suite, "models": ["alpha", "betta"], "seeed": 1})
    assert "has 2 mistakes" in message
    assert message.count("betta") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("models: {a: {id: x/y}, a: {id: x/y}}", "'a' is given twice"),
        ("modles: {a: {id: x/y}}", "modles: unknown key; did you mean models?"),
        ("models: {}", "models: "),
        ("- a", "holds no list of models"),
    ],
)
def test_a_file_that_is_no_list(tmp_path, text, words):
    file = tmp_path / "list.yaml"
    file.write_text(text)
    assert words in complaint({"suite": str(file), "models": ["a"]})


# ---------------------------------------------------------------------------- the list that we have


def test_every_model_of_the_list_is_in_order(monkeypatch):
    monkeypatch.chdir(ROOT)
    study = load_config({"suite": "config/models.yaml", "models": list(LISTED)})
    for model in study.models.values():
        assert model.family
        assert model.base is not None
    assert len({model.id for model in study.models.values()}) == len(LISTED)


def test_the_table_has_its_42_rows_and_the_paper_its_38_models():
    assert len(IN_TABLE) == 42
    counted = {n for n, m in IN_TABLE.items() if m["family"] != "pythia"} | {"pythia-6.9b"}
    assert len(counted) == 38
    # 14 fine-tuned by the paper's count, which has Gemma 1.1 among the base models.
    tuned = [n for n in counted if not LISTED[n]["base"] and not n.startswith("gemma-1.1")]
    assert len(tuned) == 14


@pytest.mark.parametrize("name", LISTED)
def test_parameters_are_what_blocks_and_dimension_allow(name):
    own = LISTED[name]["facts"]["config"]
    # A block has about 12 d² (grouped queries: fewer; wide gated MLPs of Gemma: up to 21 d²), and
    # there is an embedding of 32 to 257 thousand tokens, once or twice.
    d, blocks = own["dimension"], own["blocks"]
    least = 8 * blocks * d**2 + 32_000 * d
    most = 34 * blocks * d**2 + 2 * 257_000 * d
    assert least < own["parameters"] < most


@pytest.mark.parametrize(
    ("name", "published"),
    [("pythia-70m", 70_426_624), ("pythia-1b", 1_011_781_632), ("pythia-12b", 11_846_072_320)],
)
def test_parameters_are_those_of_the_model_cards(name, published):
    assert LISTED[name]["facts"]["config"]["parameters"] == published


@pytest.mark.parametrize("name", ["gpt2", "pythia-70m", "pythia-160m"])
def test_parameters_are_those_that_transformers_counts(name):
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig

    own = LISTED[name]["facts"]["config"]
    d, blocks = own["dimension"], own["blocks"]
    config = (
        GPT2Config(n_embd=d, n_layer=blocks)
        if name == "gpt2"
        else GPTNeoXConfig(
            hidden_size=d,
            num_hidden_layers=blocks,
            num_attention_heads=d // 64,
            intermediate_size=4 * d,
            vocab_size=50304,
        )
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == own["parameters"]


def test_checkpoints_of_pythia_have_seen_their_tokens(monkeypatch):
    monkeypatch.chdir(ROOT)
    study = load_config({"suite": "config/models.yaml", "models": ["pythia-12b"]})
    steps = study.checkpoints("pythia-12b")
    assert (steps[0], steps[-1]) == ("step0", "step143000")
    tokens = [study.model_spec("pythia-12b", step)["tokens"] for step in steps]
    assert tokens == sorted(tokens)
    assert tokens[-1] == 299_892_736_000
    assert tokens[-1] == pytest.approx(study.models["pythia-12b"].tokens, rel=0.01)


def test_a_score_is_the_tables_and_says_so():
    for name, model in IN_TABLE.items():
        printed = model["facts"]["table"]["score"]
        recorded = model.get("scores", {})
        assert ("leaderboard" in recorded) == (printed is not None), name
        if printed is not None:
            assert recorded["leaderboard"]["value"] == printed
            assert "Table 1 of arXiv 2407.07810" in recorded["leaderboard"]["source"]


def test_tokens_are_the_tables():
    for name, model in IN_TABLE.items():
        printed = model["facts"]["table"]["tokens"]
        # The one without a unit is in units of 10¹².
        assert model["tokens"] == (printed * 1e12 if printed == 0.42 else printed), name


def test_a_larger_model_of_one_row_that_scores_less_is_remarked_on():
    rows: dict[str, list[tuple[float, float, str]]] = {}
    for name, model in IN_TABLE.items():
        table = model["facts"]["table"]
        if table["score"] is not None:
            rows.setdefault(table["name"], []).append((table["parameters"], table["score"], name))
    odd = set()
    for models in rows.values():
        models.sort()
        for (_, lower, _), (_, higher, name) in pairwise(models):
            odd |= {name} if higher < lower else set()
    assert odd == {"gemma-1.1-7b", "codellama-13b-instruct"}
    for name in odd:
        assert any("score" in note for note in LISTED[name]["facts"]["notes"])


def test_differences_are_told_where_both_say_something():
    facts = {
        "table": {"name": "A", "blocks": 4, "dimension": 8, "position": "ALiBi", "tokens": None},
        "config": {"blocks": 4, "dimension": 16, "position": "RoPE", "tokens": 3, "heads": 2},
    }
    assert differences(facts) == {"dimension": (8, 16), "position": ("ALiBi", "RoPE")}
    assert differences({"config": {"blocks": 4}}) == {}


@pytest.mark.parametrize(("true", "differs"), [(7.3e9, False), (7.5e9, True), (6.5e9, True)])
def test_rounded_parameters_are_no_difference(true, differs):
    facts = {"table": {"parameters": 7e9}, "config": {"parameters": true}}
    assert bool(differences(facts)) == differs


def test_a_model_that_is_not_what_its_facts_say_is_told():
    record = {"name": "m", "parameters": 1_004_000, "blocks": 3, "dimension": 32}
    facts = {"parameters": 1_000_000, "blocks": 4, "dimension": 32, "position": "RoPE"}
    (told,) = contradictions(record | {"facts": {"config": facts}})
    assert "facts.config of m says blocks = 4, and the model has 3" in told
    assert contradictions(record | {"facts": {}}) == []


def test_blocks_and_dimensions_of_the_table_are_the_models_own():
    for model in IN_TABLE.values():
        assert not {"blocks", "dimension"} & set(differences(model["facts"]))


# ------------------------------------------------------------------------------------ the documents


def rows(heading: str) -> list[list[str]]:
    text = (ROOT / "docs" / "suite.md").read_text(encoding="utf-8").split(heading, 1)[1]
    table = re.search(r"^\|.*?(?=\n\n)", text, re.DOTALL | re.MULTILINE).group()
    return [[cell.strip() for cell in r.strip("|").split("|")] for r in table.splitlines()[2:]]


def number(text: str) -> float:
    value, _, unit = text.partition(" ")
    return float(value) * {"": 1, "M": 1e6, "B": 1e9, "T": 1e12}[unit]


def test_the_documented_suite_is_the_list():
    documented = rows("# The suite")
    assert [row[0] for row in documented] == list(LISTED)
    for name, place, family, base, size, blocks, dimension, tokens, position, score in documented:
        model = LISTED[name]
        own = model["facts"]["config"]
        assert (place, family) == (model["id"], model["family"])
        assert base == ("yes" if model["base"] else "no")
        assert number(size) == pytest.approx(own["parameters"], rel=1e-3)
        assert (int(blocks), int(dimension)) == (own["blocks"], own["dimension"])
        assert position == own["position"]
        assert (number(tokens) if tokens else None) == model["tokens"]
        printed = model.get("scores", {}).get("leaderboard", {}).get("value")
        assert (float(score) if score else None) == printed


def test_every_difference_and_note_is_documented():
    found = [(name, fact) for name, m in LISTED.items() for fact in differences(m["facts"])]
    assert [tuple(row[:2]) for row in rows("## Where the table")] == found
    text = " ".join((ROOT / "docs" / "suite.md").read_text(encoding="utf-8").split())
    for name, model in LISTED.items():
        for note in model["facts"].get("notes", []):
            assert f"**{name}** {note}" in text


# ------------------------------------------------------------------------------- the paper's study


def test_the_papers_study_measures_all_of_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    study = load_config("config/studies/paper.yaml")
    assert set(study.models) == set(IN_TABLE)
    assert len(study.datasets) == 6
    assert sum(dataset.prompts for dataset in study.datasets.values()) == 1200
    # Branches move; a commit gives the same prompts for ever.
    assert all(re.fullmatch("[0-9a-f]{40}", d.revision) for d in study.datasets.values())
    for model in ("pythia-6.9b", "pythia-12b"):
        assert len(study.checkpoints(model)) > 10
    trained = [
        (model, [c for c in study.checkpoints(model) if c not in ("init", "step0")][-1])
        for model in study.models
    ]
    recorded = [m for m, c in trained if "leaderboard" in study.score_spec(m, c)["recorded"]]
    assert len(recorded) == sum("scores" in m for m in IN_TABLE.values())
    # Whatever is too large for memory is streamed.
    sizes = {n: m["facts"]["config"]["parameters"] for n, m in IN_TABLE.items()}
    for model in study.models:
        for checkpoint in study.checkpoints(model):
            assert study.streams(model, checkpoint) or sizes[model] < 14e9
