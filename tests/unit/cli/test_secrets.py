"""A token that is planted does not come out: not in what is printed, nor in what is written."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gossiping_hub import TOKEN, Gossip, gossiping_hub

from blockcoupling.cli.secrets import HIDDEN, Discreet, known_secrets

PASSWORD = "open%2Fsesame"


@pytest.fixture
def hub() -> Iterator[str]:
    with gossiping_hub() as address:
        yield address


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("kept", ["in the environment", "in a file"])
def test_a_planted_token_stays_where_it_is(
    kept: str, debug: bool, hub: str, tmp_path: Path
) -> None:
    secret = {"HF_TOKEN": TOKEN}
    if kept == "in a file":
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "token").write_text(TOKEN + "\n")
        secret = {}
    words = ["model", "--spec", json.dumps({"name": "m", "checkpoint": "main"} | SOURCE)]
    words = [*(["--debug"] if debug else []), *words, "--out", str(tmp_path / "made" / "m.json")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": f"http://{hub}", **secret}
    ran = subprocess.run(
        [sys.executable, "-m", "blockcoupling", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert any(TOKEN in sent for sent in Gossip.asked)  # the hub received it
    assert ran.returncode != 0
    assert HIDDEN in ran.stderr  # it was said, and would have been seen
    assert TOKEN not in ran.stdout + ran.stderr
    made = tmp_path / "made"
    assert not any(TOKEN.encode() in p.read_bytes() for p in made.rglob("*") if p.is_file())


SOURCE = {"source": "hub", "id": "some/model", "revision": "main"}


def test_what_is_a_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.upper().startswith(("HF_", "HTTP", "ALL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert known_secrets() == []
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("https_proxy", f"http://me:{PASSWORD}@proxy:3128")
    assert known_secrets() == [TOKEN, PASSWORD, "open/sesame"]
    monkeypatch.setenv("HF_TOKEN", "on")
    assert "on" not in known_secrets()


def test_the_rest_of_what_is_said_stays() -> None:
    said = io.StringIO()
    stream = Discreet(said, [TOKEN])
    assert stream.write(f"with {TOKEN}, twice {TOKEN}") == len(f"with {TOKEN}, twice {TOKEN}")
    stream.writelines(["a\n", f"{TOKEN}\n"])
    assert said.getvalue() == f"with {HIDDEN}, twice {HIDDEN}a\n{HIDDEN}\n"
    assert stream.isatty() is False
