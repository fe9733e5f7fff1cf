"""A hub that tells the secrets it was given: nothing that a study leaves has them.

What a study leaves where secrets are about and all goes well: test_small_study.py.
"""

import pytest
from gossiping_hub import SECRETS, TOKEN, Gossip, gossiping_hub
from running import Workplace

pytestmark = pytest.mark.workflow


def test_a_study_whose_hub_tells_them_holds_none(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the hub answers is in the log of the job that failed, and on the screen."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HOME", str(workplace.directory / "home"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    workplace.configure(models={"theirs": {"id": "some/model"}}, extract={"k": 4})
    with gossiping_hub() as address:
        monkeypatch.setenv("HF_ENDPOINT", f"http://{address}")
        run = workplace.snakemake("models")
    assert run.status != 0
    assert any(TOKEN in each for each in Gossip.asked)
    assert "not for Bearer (hidden)" in run.said
    log = workplace.results / "logs" / "weights" / "theirs" / "main.log"
    assert "not for Bearer (hidden)" in log.read_text()
    assert TOKEN not in run.said
    assert workplace.holding(*SECRETS) == []
