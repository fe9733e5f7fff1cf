"""How a question of a dataset becomes a prompt: one named template per dataset.

A template reads a row in the local form, which the datasets' own files and the hub's rows are
brought to first:

    id        str, optional
    question  str; gsm8k and mmlu in the datasets' words, hellaswag "activity: context",
              winogrande with "_" for the blank
    choices   list of str, where there are any
    answer    index into choices (gsm8k: the final number as text)
    subject   str, mmlu only

A prompt ends where an answer would begin, without a space after it, so that the last token is the
one from which a model would answer. The choices are shown for mmlu alone, as the evaluations of
these benchmarks do. No chat format is added, neither for base nor for fine-tuned models.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Template:
    """How a row is read.

    Attributes:
        about: A description of the prompt, for documentation and messages.
        prompt: The text of the prompt.
        fields: What a row in the local form must have.
        from_hub: Brings a row of the dataset as the hub has it to the local form.
        continuations: One text per choice, to follow the prompt and one space; None where
            the dataset has no choices to score.
    """

    about: str
    prompt: Callable[[Row], str]
    fields: tuple[str, ...] = ("question", "choices", "answer")
    from_hub: Callable[[Row], dict[str, Any]] = dict
    continuations: Callable[[Row], list[str]] | None = None


def _letters(row: Row) -> list[str]:
    return [chr(ord("A") + n) for n in range(len(row["choices"]))]


def _mmlu(row: Row) -> str:
    choices = zip(_letters(row), row["choices"], strict=True)
    return "\n".join([row["question"].strip(), *(f"{a}. {b}" for a, b in choices), "Answer:"])


def _winogrande_continuations(row: Row) -> list[str]:
    rest = row["question"].split("_", 1)[1]
    return [choice + rest for choice in row["choices"]]


def _arc_from_hub(row: Row) -> dict[str, Any]:
    choices = row["choices"]
    return {
        "id": row["id"],
        "question": row["question"],
        "choices": list(choices["text"]),
        "answer": list(choices["label"]).index(row["answerKey"]),
    }


def _gsm8k_from_hub(row: Row) -> dict[str, Any]:
    final = row["answer"].rsplit("####", 1)[1].strip()
    return {"question": row["question"], "solution": row["answer"], "answer": final}


def _hellaswag_from_hub(row: Row) -> dict[str, Any]:
    return {
        "id": str(row["ind"]),
        "question": f"{row['activity_label']}: {row['ctx']}",
        "choices": list(row["endings"]),
        "answer": int(row["label"]),
    }


def _mmlu_from_hub(row: Row) -> dict[str, Any]:
    return {key: row[key] for key in ("subject", "question", "choices", "answer")}


def _truthfulqa_from_hub(row: Row) -> dict[str, Any]:
    targets = row["mc1_targets"]
    return {
        "question": row["question"],
        "choices": list(targets["choices"]),
        "answer": list(targets["labels"]).index(1),
    }


def _winogrande_from_hub(row: Row) -> dict[str, Any]:
    return {
        "question": row["sentence"],
        "choices": [row["option1"], row["option2"]],
        "answer": int(row["answer"]) - 1,
    }


TEMPLATES: dict[str, Template] = {
    "text": Template(
        about="the row's `text`, as it is",
        fields=("text",),
        prompt=lambda row: row["text"],
    ),
    "question": Template(
        about="the row's `question`, as it is",
        fields=("question",),
        prompt=lambda row: row["question"],
    ),
    "arc_challenge": Template(
        about='"Question: {question}", a new line, "Answer:"',
        prompt=lambda row: f"Question: {row['question']}\nAnswer:",
        continuations=lambda row: list(row["choices"]),
        from_hub=_arc_from_hub,
    ),
    "gsm8k": Template(
        about='"Question: {question}", a new line, "Answer:"',
        fields=("question",),
        prompt=lambda row: f"Question: {row['question']}\nAnswer:",
        from_hub=_gsm8k_from_hub,
    ),
    "hellaswag": Template(
        about='"{activity}: {context}", the beginning of the sentence to be ended',
        prompt=lambda row: row["question"].strip(),
        continuations=lambda row: list(row["choices"]),
        from_hub=_hellaswag_from_hub,
    ),
    "mmlu": Template(
        about='the question, its choices as lines "A. ..." to "D. ...", then "Answer:"',
        prompt=_mmlu,
        continuations=_letters,
        from_hub=_mmlu_from_hub,
    ),
    "truthfulqa": Template(
        about='"Q: {question}", a new line, "A:"',
        prompt=lambda row: f"Q: {row['question']}\nA:",
        continuations=lambda row: list(row["choices"]),
        from_hub=_truthfulqa_from_hub,
    ),
    "winogrande": Template(
        about="the sentence up to its blank, where the name has to be chosen",
        prompt=lambda row: row["question"].split("_", 1)[0].strip(),
        continuations=_winogrande_continuations,
        from_hub=_winogrande_from_hub,
    ),
}
