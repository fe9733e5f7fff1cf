"""The built wheel in an empty environment: measuring without extras, and the built-in study."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))

MEASURE = """
import blockcoupling as bc
from transformers import LlamaConfig, LlamaForCausalLM

sizes = dict(hidden_size=16, intermediate_size=32, num_attention_heads=2, num_hidden_layers=2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=128, num_key_value_heads=2, **sizes)).eval()
ds = bc.measure(model, lambda text, **_: {"input_ids": list(text.encode())}, ["a prompt"], k=4)
assert bc.coupling(ds, k=4).shape == (1, 1)
"""


def run(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    found = {"UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", "")}
    environment = {**{k: v for k, v in found.items() if v}, **os.environ}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.workflow
@pytest.mark.skipif(UV is None, reason="uv is not installed")
def test_the_wheel_measures_and_runs_the_builtin_study(tmp_path: Path) -> None:
    source = tmp_path / "source"
    listed = run("git", "ls-files", "-co", "--exclude-standard").stdout.splitlines()
    for name in listed:
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    built = run(UV, "build", "--wheel", "--out-dir", tmp_path, cwd=source)
    if built.returncode:
        pytest.skip(f"setuptools is not available: {built.stderr[-300:]}")
    (wheel,) = tmp_path.glob("*.whl")
    assert run(UV, "venv", "--python", sys.executable, tmp_path / "env").returncode == 0
    programs = tmp_path / "env" / "bin"
    python, program = programs / "python", programs / "blockcoupling"
    locked = ("-c", ROOT / "requirements.lock")
    install = (UV, "pip", "install", "--offline", "--python", python, *locked)
    if (done := run(*install, wheel)).returncode:
        pytest.skip(f"uv's cache does not have the packages: {done.stderr[-300:]}")
    measured = run(python, "-c", MEASURE, cwd=tmp_path)
    assert measured.returncode == 0, measured.stderr
    without = run(program, "demo", tmp_path / "demo", "--dry-run", cwd=tmp_path)
    assert without.returncode == 2
    assert "pip install 'blockcoupling[study]'" in without.stderr
    done = run(*install, f"blockcoupling[study,train] @ file://{wheel}")
    assert done.returncode == 0, done.stderr
    planned = run(program, "demo", tmp_path / "demo", "--dry-run", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert "This was a dry-run" in planned.stdout
    assert (tmp_path / "demo" / "config" / "config.yaml").is_file()
