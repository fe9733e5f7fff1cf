"""What is private is found in texts, and what only looks like it stays."""

from pathlib import Path

import pytest

from blockcoupling.errors import UserError
from blockcoupling.publish.private import Private, absolute_paths


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/home/me/models/big", {"/home/me/models/big"}),
        ("--config=/home/me/s.yaml", {"/home/me/s.yaml"}),
        ('{"path": "/scratch/x/y z"}', {"/scratch/x/y"}),
        ("file:///data/questions.jsonl", {"/data/questions.jsonl"}),
        ("see ~/models/big", {"~/models/big"}),
        ("https://example.org/a/b", set()),
        ("results/demo/svd/m/main", set()),
        ("EleutherAI/pythia-70m", set()),
        ("1 − m/m_chance, nats/byte, and/or", set()),
        ("x = (O − K/d) / (1 − K/d)", set()),
    ],
)
def test_absolute_paths_are_found(text: str, found: set[str]) -> None:
    assert absolute_paths(text) == found
    assert absolute_paths({"a": [text, 1, None], "b": True}) == found


def test_the_last_part_of_a_path_is_published() -> None:
    private = Private({"/home/me/models/big", "/home/me/models"}, ["/home/me/work"])
    assert private.clean("/home/me/models/big and /home/me/work/results/a") == "big and ./results/a"
    assert private.cleaned({"a": ["/home/me/models/big", 1.5, None]}) == {"a": ["big", 1.5, None]}
    assert private.clean(f"{Path.home()}/x") == "./x"


def test_what_would_tell_of_the_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "node17")
    private = Private({"/home/me/models/big"}, [])
    private.demand_none("a study of node1 and anode17", "README.md")
    with pytest.raises(UserError, match=r"README\.md would tell 'node17'"):
        private.demand_none("made on node17.", "README.md")
    with pytest.raises(UserError, match="would tell '/home/me/models/big'"):
        private.demand_none("of /home/me/models/big", "x.json")
