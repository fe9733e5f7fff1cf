"""Prompts keep their identity and text on every way they come and go."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockcoupling.errors import UserError
from blockcoupling.sources import hub
from blockcoupling.sources.corpus import corpus
from blockcoupling.sources.prompts import (
    HELDOUT_PROMPT_BYTES,
    Prompt,
    load_prompts,
    read_prompts,
    read_questions,
    write_prompts,
)

in_one_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def complaint(spec: dict) -> str:
    with pytest.raises(UserError) as caught:
        load_prompts(spec)
    return str(caught.value)


@in_one_directory
@given(
    st.lists(
        st.builds(
            Prompt,
            st.text(min_size=1, max_size=14),  # what makes a file name
            st.text(min_size=1).filter(str.strip),
            st.dictionaries(st.sampled_from(["subject", "n"]), st.integers() | st.text()),
        ),
        min_size=1,
        unique_by=lambda prompt: prompt.id,
    )
)
def test_written_prompts_are_read_back(tmp_path: Path, prompts: list[Prompt]) -> None:
    write_prompts(prompts, tmp_path / "prompts.jsonl")
    assert read_prompts(tmp_path / "prompts.jsonl") == prompts


def test_the_handwritten_prompts() -> None:
    prompts = load_prompts({"source": "builtin", "name": "handwritten"})
    assert len(prompts) >= 8
    assert "What is the capital of France? The capital is" in [p.text for p in prompts]
    # They end where a word is due, and fit the context of the built-in study's models.
    assert all(p.text == p.text.rstrip() and len(p.text.encode()) <= 128 for p in prompts)


def test_heldout_prompts_begin_heldout_passages() -> None:
    prompts = load_prompts({"source": "builtin", "name": "heldout"})
    assert len(prompts) >= 8
    heldout = {f"{p.topic}-{p.number}": p.text for p in corpus().heldout}
    trained = "\n".join(p.text for p in corpus().training)
    for prompt in prompts:
        assert heldout[prompt.id].startswith(prompt.text)
        assert HELDOUT_PROMPT_BYTES / 2 < len(prompt.text.encode()) <= HELDOUT_PROMPT_BYTES
        assert prompt.text not in trained
        assert "pydoc_data" in prompt.facts["source"]


def test_an_id_is_the_rows_own_or_of_its_text(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", [{"id": 7, "text": "a"}, {"text": "b"}, {"text": "c"}])
    first, second, third = load_prompts({"path": str(file)})
    assert first.id == "7"
    # sha256("b"), from `printf b | sha256sum`
    assert second.id == "3e23e8160039"
    assert third.id != second.id


def test_ids_that_occur_again_are_told_apart(tmp_path: Path) -> None:
    rows = [{"id": i, "text": f"text {n}"} for n, i in enumerate(["a", "a~2", "a", "a", "b"])]
    prompts = load_prompts({"path": str(write(tmp_path / "p.jsonl", rows))})
    assert [p.id for p in prompts] == ["a", "a~2", "a~3", "a~4", "b"]


@in_one_directory
@given(st.integers(1, 30), st.integers(0, 3))
def test_a_sample_keeps_ids_texts_and_order(tmp_path: Path, size: int, seed: int) -> None:
    file = tmp_path / "p.jsonl"
    rows = [{"id": str(n % 7), "text": f"text {n}"} for n in range(30)]
    everything = load_prompts({"path": str(write(file, rows))})
    spec = {"path": str(file), "prompts": size, "seed": seed}
    sample = load_prompts(spec)
    places = [
        next(n for n, p in enumerate(everything) if (p.id, p.text) == (s.id, s.text))
        for s in sample
    ]
    assert places == sorted(set(places))
    assert len(sample) == size
    assert load_prompts(spec) == sample
    assert all(p.facts.get("seed") == (seed if size < 30 else None) for p in sample)


def test_seeds_give_different_samples(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", [{"text": f"text {n}"} for n in range(100)])
    samples = {
        tuple(p.id for p in load_prompts({"path": str(file), "prompts": 5, "seed": seed}))
        for seed in range(10)
    }
    assert len(samples) == 10


def test_prompts_that_are_too_long_are_left_out_before_sampling(tmp_path: Path) -> None:
    rows = [{"id": str(n), "text": "é" * n} for n in range(1, 11)]  # two bytes each
    spec = {"path": str(write(tmp_path / "p.jsonl", rows)), "max_bytes": 8}
    assert [p.id for p in load_prompts(spec)] == ["1", "2", "3", "4"]
    assert len(load_prompts(spec | {"prompts": 4})) == 4
    assert load_prompts(spec)[0].facts["max_bytes"] == 8
    with pytest.raises(UserError, match="has 4 prompts of at most 8 bytes, but 5 are requested"):
        load_prompts(spec | {"prompts": 5})
    with pytest.raises(UserError, match="no prompts of at most 1 bytes; raise `max_bytes`"):
        load_prompts(spec | {"max_bytes": 1})


def test_facts_say_where_a_prompt_came_from(tmp_path: Path) -> None:
    row = {"question": "Why?", "choices": ["a", "b"], "answer": 1, "id": "q"}
    file = write(tmp_path / "truth.jsonl", [row, row | {"id": "r"}])
    spec = {"path": str(file), "template": "truthfulqa", "prompts": 1, "seed": 0}
    (prompt,) = load_prompts(spec)
    assert prompt.text == "Q: Why?\nA:"
    assert prompt.facts == {
        "source": "truth.jsonl",
        "template": "truthfulqa",
        "sampled": 1,
        "seed": 0,
        "continuations": ["a", "b"],
        "answer": 1,
    }


@pytest.mark.parametrize(
    ("text", "template", "words"),
    [
        ('{"text": "a"}\n{"text": "b"\n', "text", "line 2: not JSON"),
        ('"text"\n', "text", "line 1: not a JSON object"),
        ('{"question": "Why?"}\n', "text", "line 1: no text, which the template text reads"),
        ('{"text": " "}\n', "text", "line 1: empty prompt"),
        ('{"text": 3}\n', "text", "line 1: text not in the form of the templates"),
        (
            '{"question": "_ ran.", "choices": [], "answer": 0}',
            "winogrande",
            "line 1: empty prompt",
        ),
        (
            '{"question": "Why?", "choices": "ab", "answer": "A"}',
            "mmlu",
            "line 1: choices and answer not in the form",
        ),
        ("\n\n", "text", "holds no prompts"),
        (
            '{"text": "a"}\n{"text": "b \\ud83d c"}\n',
            "text",
            "line 2: half of a surrogate pair (\\ud83d)",
        ),
        (
            '{"text": "a", "topic": ["\\udc00"]}',
            "text",
            "line 1: half of a surrogate pair (\\udc00)",
        ),
        (
            '{"text": "a", "text": "b"}',
            "text",
            "line 1: not JSON that can be read ('text' is given",
        ),
        ('{"text": "a", "n": ' + "9" * 5000 + "}", "text", "line 1: not JSON that can be read"),
        ('{"text": "a", "n": ' + "[" * 10**5 + "}", "text", "line 1: not JSON that can be read"),
        (f'{{"text": "a", "id": "{"long " * 50}"}}', "text", "line 1: the prompt id 'long long"),
        (f'{{"text": "a", "id": "{"語" * 30}"}}', "text", "is too long for a file name (270 bytes"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, template: str, words: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(text)
    message = complaint({"path": str(file), "template": template})
    assert words in message
    assert str(file) in message


@pytest.mark.parametrize("start", ["\ufeff", ""])
def test_a_byte_order_mark(tmp_path: Path, start: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(start + '{"id": "a", "text": "b"}\r\n{"id": "c", "text": "d"}\r\n')
    assert [(p.id, p.text) for p in read_prompts(file)] == [("a", "b"), ("c", "d")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin-1"])
def test_another_encoding(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"id": "a", "text": "é"}', encoding=encoding)
    assert "is not a text file in UTF-8" in complaint({"path": str(file)})


def test_every_broken_line_is_named_but_not_a_thousand(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text("{\n" * 1000)
    lines = complaint({"path": str(file)}).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "... and 990 more"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in complaint({"path": str(tmp_path / "none.jsonl")})
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "not a text file" in complaint({"path": str(tmp_path / "binary")})


def test_too_few_prompts(tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", [{"text": "a"}])
    assert "has 1 prompts, but 2 are requested" in complaint({"path": str(file), "prompts": 2})


def test_a_wrong_description_of_prompts() -> None:
    assert "did you mean heldout" not in complaint({"source": "builtin", "name": "held"})
    assert "unknown source 'buildin'; did you mean builtin?" in complaint({"source": "buildin"})


def test_questions_are_read_whole(tmp_path: Path) -> None:
    row = {"question": "Why?", "choices": ["a", "b"], "answer": 1, "more": 3}
    file = write(tmp_path / "q.jsonl", [row])
    assert read_questions(file, "arc_challenge") == [row]
    with pytest.raises(UserError, match="no text"):
        read_questions(file, "text")


# ----------------------------------------------------------------------------------------- the hub

MMLU = [
    {"subject": subject, "question": f"Q{n}?", "choices": ["a", "b", "c", "d"], "answer": 0}
    for n, subject in enumerate(["art", "law", "art"])
]


def test_prompts_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def rows(*arguments: object) -> tuple[list[dict], str]:
        asked.append(arguments)
        return MMLU, "c0ffee"

    monkeypatch.setattr(hub, "dataset_rows", rows)
    spec = {"id": "cais/mmlu", "config": "all", "revision": "main", "template": "mmlu"}
    prompts = load_prompts({"dataset": "mmlu", **spec})
    assert asked == [("cais/mmlu", "all", "test", "main")]
    assert [p.id for p in prompts] == ["art/0", "law/0", "art/1"]
    assert prompts[0].text == "Q0?\nA. a\nB. b\nC. c\nD. d\nAnswer:"
    assert prompts[0].facts["revision"] == "c0ffee"


def test_rows_of_another_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "dataset_rows", lambda *_: ([{"text": "a"}], "c0ffee"))
    message = complaint({"id": "x/y", "revision": "main", "template": "gsm8k"})
    assert "x/y (test), row 0 does not have the form that the template gsm8k reads" in message
    assert "its columns are text" in message


def test_a_dataset_and_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    asked = {}

    def load(repository: str, **options: object) -> list[dict]:
        asked.update(options, repository=repository)
        return [{"text": "a"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(
        huggingface_hub.HfApi, "dataset_info", lambda *_, revision: SimpleNamespace(sha="c" * 40)
    )
    assert hub.dataset_rows("x/y", None, "test", "main") == ([{"text": "a"}], "c" * 40)
    assert asked["revision"] == "c" * 40

    def fail(*_: object, **__: object) -> None:
        raise ValueError("Unknown split \"test\". Should be one of ['train'].")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(UserError, match=r"split test: Unknown split .* one of \['train'\]"):
        hub.dataset_rows("x/y", None, "test", "main")
