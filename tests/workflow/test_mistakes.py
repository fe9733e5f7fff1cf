"""What a user can get wrong is said in one message, before any job runs."""

import json
from pathlib import Path

import pytest
from running import Workplace

pytestmark = pytest.mark.workflow

TINY = {"hidden_size": 16, "blocks": 2, "heads": 2, "steps": 2}


def jsonl(place: Path, *lines: str) -> dict:
    (place / "mine.jsonl").write_text("\n".join(lines) + "\n")
    return {"datasets": {"mine": {"path": "mine.jsonl"}}}


def misspelt_key(place):
    return {"extract": {"k": 4, "toknes": "last"}}, ["extract.toknes", "did you mean tokens"]


def missing_directory(place):
    return {"models": {"mine": {"path": "weights/absent"}}}, ["models.mine", "weights/absent"]


def too_large_k(place):
    return {"extract": {"k": 17}}, ["extract.k: 17 is larger than the dimension 16"]


def empty_prompt(place):
    return jsonl(place, '{"text": "fine"}', '{"text": "  "}'), ["datasets.mine", "line 2", "empty"]


def broken_line(place):
    return jsonl(place, '{"text": "fine"}', '{"text": '), ["datasets.mine", "line 2", "not JSON"]


def missing_prompts(place):
    return {"datasets": {"mine": {"path": "absent.jsonl"}}}, ["cannot read absent.jsonl"]


def one_block(place):
    (place / "weights").mkdir()
    config = {"num_hidden_layers": 1, "hidden_size": 16, "architectures": ["X"]}
    (place / "weights" / "config.json").write_text(json.dumps(config))
    return {"models": {"mine": {"path": "weights"}}}, ["models.mine", "1 block"]


def no_models(place):
    return {"models": None}, ["models"]


MISTAKES = [
    *(misspelt_key, missing_directory, too_large_k, empty_prompt, broken_line),
    *(missing_prompts, one_block, no_models),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_is_one_message_before_any_job(workplace: Workplace, mistake):
    changes, said = mistake(workplace.directory)
    workplace.configure(**changes)
    run = workplace.snakemake()
    assert run.status != 0
    for words in said:
        assert words in run.said
    assert run.said.count("the configuration has") == 1
    assert "Traceback" not in run.said
    assert not run.jobs
    assert not workplace.results.exists()


def test_all_mistakes_are_listed_at_once(workplace: Workplace):
    workplace.configure(
        extract={"k": 17},
        models={"small": {"train": TINY}, "lost": {"path": "absent"}},
        datasets={"mine": {"path": "absent.jsonl"}},
        figuers={},
    )
    run = workplace.snakemake("--dry-run")
    assert "has 4 mistakes" in run.said


def test_why_a_job_failed_is_on_the_screen(workplace: Workplace):
    # The prompt has two tokens; it is known only once it has been cut into tokens.
    changes = jsonl(workplace.directory, '{"text": "ab"}')
    workplace.configure(**changes, extract={"k": 4, "tokens": [40]})
    run = workplace.snakemake("results/seconds/tables/deeper/step2/mine/coupling.parquet")
    assert run.status != 0
    assert "error: prompt" in run.said
    assert "Traceback" not in run.said


def test_a_model_that_the_hub_does_not_give_is_explained(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    workplace.configure(models={"mine": {"id": "nobody/no-such-model"}})
    run = workplace.snakemake("models")
    assert run.status != 0
    assert "error: the model nobody/no-such-model" in run.said
    assert "unset HF_HUB_OFFLINE" in run.said
    assert "Traceback" not in run.said
