"""How questions become prompts, word for word, and that rows of the hub give the same ones."""

import pytest

from blockcoupling.config.questions import TEMPLATES

# name: (row of the hub's dataset, local row, prompt, continuations)
CASES = {
    "arc_challenge": (
        {
            "id": "M_1",
            "question": "Which is hot?",
            "choices": {"text": ["ice", "fire"], "label": ["1", "2"]},
            "answerKey": "2",
        },
        {"id": "M_1", "question": "Which is hot?", "choices": ["ice", "fire"], "answer": 1},
        "Question: Which is hot?\nAnswer:",
        ["ice", "fire"],
    ),
    "gsm8k": (
        {"question": "2 + 2?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"},
        {"question": "2 + 2?", "solution": "2 + 2 = <<2+2=4>>4\n#### 4", "answer": "4"},
        "Question: 2 + 2?\nAnswer:",
        None,
    ),
    "hellaswag": (
        {
            "ind": 24,
            "activity_label": "Roofing",
            "ctx": "A man is on a roof. he",
            "endings": ["sings.", "works."],
            "label": "1",
        },
        {
            "id": "24",
            "question": "Roofing: A man is on a roof. he",
            "choices": ["sings.", "works."],
            "answer": 1,
        },
        "Roofing: A man is on a roof. he",
        ["sings.", "works."],
    ),
    "mmlu": (
        {"subject": "art", "question": "Who? ", "choices": ["I", "you", "he", "she"], "answer": 0},
        {"subject": "art", "question": "Who? ", "choices": ["I", "you", "he", "she"], "answer": 0},
        "Who?\nA. I\nB. you\nC. he\nD. she\nAnswer:",
        ["A", "B", "C", "D"],
    ),
    "truthfulqa": (
        {"question": "Why?", "mc1_targets": {"choices": ["so", "because"], "labels": [0, 1]}},
        {"question": "Why?", "choices": ["so", "because"], "answer": 1},
        "Q: Why?\nA:",
        ["so", "because"],
    ),
    "winogrande": (
        {
            "sentence": "Ann beat Eve, so _ won the prize.",
            "option1": "Ann",
            "option2": "Eve",
            "answer": "1",
        },
        {
            "question": "Ann beat Eve, so _ won the prize.",
            "choices": ["Ann", "Eve"],
            "answer": 0,
        },
        "Ann beat Eve, so",
        ["Ann won the prize.", "Eve won the prize."],
    ),
    "text": ({"text": "as it is "}, {"text": "as it is "}, "as it is ", None),
    "question": ({"question": "Why?"}, {"question": "Why?"}, "Why?", None),
}


def test_every_template_has_a_case() -> None:
    assert set(CASES) == set(TEMPLATES)


@pytest.mark.parametrize("name", CASES)
def test_hub_and_local_rows_give_the_prompt(name: str) -> None:
    hub, local, prompt, continuations = CASES[name]
    template = TEMPLATES[name]
    assert template.from_hub(hub) == local
    assert set(template.fields) <= set(local)
    assert template.prompt(local) == prompt
    if continuations is None:
        assert template.continuations is None
    else:
        assert template.continuations is not None
        assert template.continuations(local) == continuations
