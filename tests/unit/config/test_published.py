"""Scores of others: what is read out of their files, and what is refused in a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from blockcoupling.config.published import (
    FOLDER,
    demand_one_scale,
    of_repository,
    one_each,
    read_results,
)
from blockcoupling.config.score import Score
from blockcoupling.config.study import Study
from blockcoupling.errors import UserError
from blockcoupling.scores.scores import COLUMNS, evaluate

HARNESS: dict[str, Any] = {
    "results": {
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict-match": 0.012,
            "exact_match_stderr,strict-match": 0.003,
            "exact_match,flexible-extract": 0.021,
            "exact_match_stderr,flexible-extract": 0.004,
        },
        "wikitext": {
            "alias": "wikitext",
            "word_perplexity,none": 33.5,
            "word_perplexity_stderr,none": "N/A",
        },
        "arc": {" ": " ", "alias": "arc"},
    },
    "n-shot": {"gsm8k": 5, "wikitext": 0},
    "n-samples": {"gsm8k": {"original": 1319, "effective": 1319}},
    "higher_is_better": {"gsm8k": {"exact_match": True}},
    "versions": {"gsm8k": 3.0, "wikitext": 2.0},
    "config": {"model": "hf", "model_args": "pretrained=lab/small,revision=step1000,dtype=float32"},
    "model_name": "lab/small",
    "lm_eval_version": "0.4.9",
    "date": 1760486400.5,
}
EVERY: dict[str, Any] = {
    "schema_version": "0.2.1",
    "evaluation_id": "board/lab-small/1",
    "retrieved_timestamp": "1760572800",
    "source_metadata": {
        "source_name": "A board",
        "source_type": "documentation",
        "source_organization_name": "board.org",
        "evaluator_relationship": "third_party",
    },
    "eval_library": {"name": "helm", "version": "0.5"},
    "model_info": {"name": "Small", "id": "lab/small"},
    "evaluation_results": [
        {
            "evaluation_name": "MMLU Pro (5-shot)",
            "source_data": {"source_type": "url", "url": ["https://board.org"]},
            "evaluation_timestamp": "2025-10-14T10:00:00Z",
            "metric_config": {
                "metric_id": "accuracy",
                "lower_is_better": False,
                "min_score": 0,
                "max_score": 100,
            },
            "score_details": {
                "score": 31.25,
                "uncertainty": {"standard_error": {"value": 0.5}, "num_samples": 800},
            },
        },
        {
            "evaluation_name": "gsm8k/strict-match",
            "metric_config": {
                "evaluation_description": "exact_match (filter: strict-match)",
                "lower_is_better": False,
            },
            "score_details": {"score": 0.5},
        },
        {
            "evaluation_name": "toxicity",
            "metric_config": {"lower_is_better": True, "has_unknown_level": True},
            "score_details": {"score": -1},
        },
    ],
}
REPOSITORY = [
    {
        "dataset": {"id": "openai/gsm8k", "task_id": "gsm8k", "revision": "abc"},
        "value": 41.2,
        "date": "2026-01-15",
        "source": {"url": "https://lab.org/traces", "name": "traces"},
    },
    {"dataset": {"id": "cais/hle", "task_id": "hle"}, "value": 8.5, "notes": "With tools"},
]


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    in_yaml = path.suffix == ".yaml"
    path.write_text(yaml.safe_dump(content) if in_yaml else json.dumps(content))
    return path


def test_results_of_the_harness(tmp_path: Path) -> None:
    file = written(tmp_path / "results_2025-10-15.json", HARNESS)
    found = {(each.score, each.metric): each for each in read_results([file])}
    assert set(found) == {
        ("gsm8k", "exact_match,strict-match"),
        ("gsm8k", "exact_match,flexible-extract"),
        ("wikitext", "word_perplexity"),
    }
    strict = found["gsm8k", "exact_match,strict-match"]
    assert (strict.model, strict.revision) == ("lab/small", "step1000")
    assert (strict.value, strict.standard_error, strict.n) == (0.012, 0.003, 1319)
    assert (strict.date, strict.few_shot) == ("2025-10-15T00:00:00Z", 5)
    assert strict.source == "lm_eval 0.4.9, task version 3.0, 5-shot, results_2025-10-15.json"
    perplexity = found["wikitext", "word_perplexity"]
    assert not perplexity.higher_is_better
    assert perplexity.standard_error is None


def test_every_eval_ever(tmp_path: Path) -> None:
    first, second = read_results([written(tmp_path / "run.json", EVERY)])
    assert (first.score, first.metric, first.value) == ("MMLU-Pro-5-shot", "accuracy", 31.25)
    assert (first.standard_error, first.n, first.date) == (0.5, 800, "2025-10-14T10:00:00Z")
    assert first.source == "A board (third party), helm 0.5, run.json"
    # As the harness's own file has it.
    assert (second.score, second.metric) == ("gsm8k", "exact_match,strict-match")
    assert (second.date, second.retrieved) == ("", "2025-10-16T00:00:00Z")
    assert (first.lowest, first.highest, second.highest) == (0, 100, None)
    assert second.model == "lab/small"


def test_results_of_a_repository(tmp_path: Path) -> None:
    written(tmp_path / FOLDER / "gsm8k.yaml", REPOSITORY)
    gsm8k, hle = of_repository(tmp_path)
    assert (gsm8k.score, gsm8k.metric, gsm8k.value) == ("gsm8k", "score", 41.2)
    assert gsm8k.source == "https://lab.org/traces, openai/gsm8k, .eval_results/gsm8k.yaml"
    assert gsm8k.date == "2026-01-15"
    assert hle.metric == "score,With-tools"
    assert of_repository(tmp_path / "none") == []


def test_directories_are_searched_and_other_files_passed_over(tmp_path: Path) -> None:
    written(tmp_path / "board" / "lab" / "a.json", EVERY)
    written(tmp_path / "runs" / "lab__small" / "results_1.json", HARNESS)
    written(tmp_path / "runs" / "config.json", {"a": 1})
    (tmp_path / "runs" / "samples_gsm8k.jsonl").write_text("{}\n")
    assert len(read_results([tmp_path])) == 5
    with pytest.raises(UserError, match=r"config.json holds no results: expected Every Eval Ever"):
        read_results([tmp_path / "runs" / "config.json"])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="no results below"):
        read_results([empty])
    with pytest.raises(UserError, match="there is no file or directory"):
        read_results([tmp_path / "gone"])


def without(content: dict[str, Any], *path: Any, value: Any = None) -> dict[str, Any]:
    changed = json.loads(json.dumps(content))
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (without(EVERY, "model_info"), "run.json, model_info: is missing"),
        (without(EVERY, "schema_version", value="0.1.0"), "schema_version: is 0.1.0; versions 0.2"),
        (
            without(EVERY, "evaluation_results", 0, "score_details", "score"),
            r"evaluation_results\[0\].score_details.score: is missing",
        ),
        (
            without(EVERY, "evaluation_results", 0, "score_details", "score", value="31"),
            r"score: has another type than expected \('31'\)",
        ),
        (
            without(EVERY, "evaluation_results", 0, "metric_config", "lower_is_better"),
            "metric_config.lower_is_better: is missing",
        ),
        (
            without(HARNESS, "results", "gsm8k", "exact_match,strict-match", value=float("nan")),
            "results.gsm8k.exact_match,strict-match: is nan, not a number",
        ),
        (without(without(HARNESS, "model_name"), "config", "model_args"), "model_name: is missing"),
        (
            without(EVERY, "evaluation_results", 0, "score_details", "score", value=131),
            r"score_details.score: is 131, outside the metric's 0 to 100",
        ),
        (
            without(HARNESS, "n-shot", "gsm8k", value=-1),
            "n-shot.gsm8k: is -1, not a count",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_said(
    tmp_path: Path, content: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        read_results([written(tmp_path / "run.json", content)])


def test_a_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps(EVERY)[:100])
    with pytest.raises(UserError, match=r"run.json cannot be read: Unterminated string"):
        read_results([file])


@given(st.permutations(["2025-01-01", "2025-06-01", "2026-01-01"]))
def test_the_newest_result_is_taken(dates: list[str]) -> None:
    results = [
        without(EVERY, "evaluation_results", 0, "evaluation_timestamp", value=date)
        for date in dates
    ]
    for n, content in enumerate(results):
        content["evaluation_results"] = content["evaluation_results"][:1]
        content["evaluation_results"][0]["score_details"]["score"] = float(n)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        files = [written(Path(folder) / f"{n}.json", each) for n, each in enumerate(results)]
        (chosen,) = one_each(read_results(files), "newest")
    assert chosen.date == "2026-01-01"
    assert chosen.value == dates.index("2026-01-01")


def test_results_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    one = written(tmp_path / "one.json", EVERY)
    other = without(EVERY, "evaluation_results", 0, "score_details", "score", value=30.0)
    two = written(tmp_path / "two.json", other)
    said = r"one.json has 31.25 \(2025-.*\) and .*two.json has 30 \(2025-.*\) for MMLU-Pro"
    with pytest.raises(UserError, match=f"{said}.*set score.several: newest"):
        one_each(read_results([one, two]))
    with pytest.raises(UserError, match=f"{said}.*no date says which is newer"):
        one_each(read_results([one, two]), "newest")
    written(tmp_path / "two.json", EVERY)  # the same twice
    assert len(one_each(read_results([one, two]))) == 2


def study(tmp_path: Path, **score: Any) -> Study:
    return Study.model_validate(
        {
            "models": {
                "small": {"id": "lab/small", "checkpoints": ["step1000", "main"]},
                "mine": {"path": str(tmp_path / "mine"), "published_as": "Me/Mine"},
            },
            "score": {"heldout": False, "name": "gsm8k", **score},
        }
    )


def test_results_find_their_checkpoints(tmp_path: Path) -> None:
    written(tmp_path / "runs" / "results_1.json", HARNESS)
    written(tmp_path / "runs" / "board.json", EVERY)
    mine = without(HARNESS, "model_name", value="me/mine")
    mine["config"] = {"model_args": {"pretrained": "me/mine"}}
    written(tmp_path / "runs" / "results_2.json", mine)
    written(tmp_path / "mine" / FOLDER / "hle.yaml", REPOSITORY[1:])
    chosen = study(tmp_path, published=[tmp_path / "runs"], repositories=True)
    assert chosen.inconsistencies() == []
    spec = chosen.score_spec("small", "step1000")
    assert {row["score"] for row in spec["published"]} == {"gsm8k", "wikitext"}
    assert spec["repository"] == "refuse"
    last = chosen.score_spec("small", "main")["published"]
    assert {row["score"] for row in last} == {"gsm8k", "MMLU-Pro-5-shot"}
    of_mine = chosen.score_spec("mine", "main")
    assert {row["score"] for row in of_mine["published"]} == {"gsm8k", "wikitext", "hle"}
    assert "repository" not in of_mine  # read already
    json.dumps(of_mine)

    record = {"name": "mine", "checkpoint": "main", "identity": {}}
    table = evaluate(record, of_mine)
    assert list(table.columns) == list(COLUMNS)
    strict = table.query("metric == 'exact_match,strict-match'").iloc[0]
    assert (strict["value"], strict["n"], strict["date"]) == (0.012, 1319, "2025-10-15T00:00:00Z")
    assert (strict["few_shot"], table["few_shot"].isna().sum()) == (5, 1)


def test_results_of_other_models_only_are_said(tmp_path: Path) -> None:
    other = without(HARNESS, "model_name", value="lab/large")
    other["config"] = {}
    file = written(tmp_path / "results_1.json", other)
    (said, *_) = study(tmp_path, published=[file]).inconsistencies()
    assert said == (
        "score.published: none of its results is of a checkpoint of this study. They name "
        "lab/large; if one is a model here, say so (published_as)"
    )


def test_a_metric_may_have_a_filter() -> None:
    assert Score(metric="exact_match,strict-match").metric == "exact_match,strict-match"


def test_patterns_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "runs" / "a" / "results_1.json", HARNESS)
    written(tmp_path / "runs" / "b" / "board.json", EVERY)
    assert len(read_results([tmp_path / "runs" / "*" / "results_*.json"])) == 3
    monkeypatch.chdir(tmp_path)
    assert len(read_results([Path("runs/*")])) == 5
    with pytest.raises(UserError, match="there is no file or directory"):
        read_results([Path("runs/*.csv")])


def test_the_newest_of_a_day_and_of_other_settings(tmp_path: Path) -> None:
    later = without(HARNESS, "date", value=HARNESS["date"] + 60)
    later["n-shot"] = {"gsm8k": 0, "wikitext": 0}
    one = written(tmp_path / "results_1.json", HARNESS)
    two = written(tmp_path / "results_2.json", later)
    # Equal values of other settings are not the same result either.
    with pytest.raises(UserError, match=r"results_1.json has 0.012 \(5-shot, .*0.012 \(0-shot, "):
        one_each(read_results([two, one]))
    chosen = one_each(read_results([two, one]), "newest")
    assert {each.file for each in chosen if each.score == "gsm8k"} == {two}


def test_a_result_without_a_date_is_not_older(tmp_path: Path) -> None:
    undated = without(without(HARNESS, "date"), "n-shot")
    files = [written(tmp_path / f"{n}.json", each) for n, each in enumerate([HARNESS, undated])]
    with pytest.raises(UserError, match="no date says which is newer"):
        one_each(read_results(files), "newest")


def test_per_cent_among_fractions_are_refused(tmp_path: Path) -> None:
    fraction = without(EVERY, "evaluation_results", 0, "score_details", "score", value=0.31)
    fraction["evaluation_results"][0]["metric_config"]["max_score"] = 1
    fraction["model_info"]["id"] = "me/mine"
    files = [written(tmp_path / "a.json", EVERY), written(tmp_path / "b.json", fraction)]
    (said, *_) = study(tmp_path, published=files).inconsistencies()
    assert "disagree on MMLU-Pro-5-shot, accuracy: one has values from 0 to 100" in said
    assert "a.json" in said and "b.json" in said
    # A file that does not give its bounds.
    for name in ("min_score", "max_score"):
        del fraction["evaluation_results"][0]["metric_config"][name]
    demand_one_scale(read_results([files[0], written(tmp_path / "b.json", fraction)]))
    fraction["evaluation_results"][0]["score_details"]["score"] = 310
    with pytest.raises(UserError, match="the other 310; give both in one unit"):
        demand_one_scale(read_results([files[0], written(tmp_path / "b.json", fraction)]))
    lower = without(EVERY, "evaluation_results", 0, "metric_config", "lower_is_better", value=True)
    with pytest.raises(UserError, match="is a higher value better or a lower one"):
        demand_one_scale(read_results([files[0], written(tmp_path / "b.json", lower)]))


def test_near_names_are_listed(tmp_path: Path) -> None:
    other = without(HARNESS, "model_name", value="lab/smal")
    other["config"] = {}
    # The study's score may be in a file that cannot be used: that is not a second mistake.
    (said,) = study(tmp_path, published=[written(tmp_path / "r.json", other)]).inconsistencies()
    assert "They name lab/smal; lab/smal is near models.small; " in said


def places(content: Any) -> list[tuple[Any, ...]]:
    """Paths of all values inside."""
    if not isinstance(content, dict | list):
        return []
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    return [(key, *rest) for key, value in inner for rest in [(), *places(value)]]


@given(st.sampled_from([HARNESS, EVERY]), st.data())
def test_any_damage_is_read_or_said_in_a_sentence(content: dict[str, Any], data: Any) -> None:
    import tempfile

    path = data.draw(st.sampled_from(places(content)))
    wrong = st.sampled_from(["", "x", 0, -1, 1e30, float("inf"), True, [], {}, ["x"], {"x": 1}])
    damaged = without(content, *path, value=data.draw(wrong))
    with tempfile.TemporaryDirectory() as folder:
        file = written(Path(folder) / "run.json", damaged)
        try:
            found = read_results([file])
        except UserError as error:
            assert str(file) in str(error)
            assert "\n" not in str(error)
        else:
            assert all(each.value == each.value and each.n >= 0 for each in found)


def test_a_date_that_nobody_understands_is_not_the_newest(tmp_path: Path) -> None:
    odd = without(HARNESS, "date", value="last week")
    odd["n-shot"] = {}
    files = [written(tmp_path / f"{n}.json", each) for n, each in enumerate([HARNESS, odd])]
    with pytest.raises(UserError, match="no date says which is newer"):
        one_each(read_results(files), "newest")
