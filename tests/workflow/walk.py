"""Random walks: edits, runs that end early, removals; then one plain run equals a fresh one.

    python tests/workflow/walk.py --walks 200 --seed 0

Snakemake and the Snakefile are the real ones; the verbs are those of `stub/`, which take
milliseconds and hash what they read into what they write. A walk is a seed, and is printed as the
steps it took.
"""

import argparse
import atexit
import copy
import functools
import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

import blockcoupling.study.check
import blockcoupling.study.needs  # noqa: F401  (before forking)

HERE = Path(__file__).parent
PYTHON = sys.executable
RULES = [
    *("train", "checkpoint", "weights", "model", "prompts", "extract", "reduce", "score"),
    *("catalog_measurements", "correlate", "costs", "catalog_statistics", "figures"),
    *("catalog_figures", "explore", "report", "catalog"),
]
QUEUED = ["train", "weights", "prompts", "extract", "reduce", "score", "correlate"]
VERBS = [
    *("train", "model", "prompts", "extract", "reduce", "score", "catalog", "correlate"),
    *("costs", "figures", "explore", "report"),
]
RESULTS = Path("results/walk")
QUESTIONS = {"path": "questions.jsonl", "template": "arc_challenge"}
PICTURES = {"source": "folder", "path": "pictures"}
VIT = {"architecture": "vit", "images": PICTURES, "image_size": 8, "hidden_size": 16, "blocks": 2}
VIT |= {"heads": 2, "epochs": 2, "warmup": 0}


BEHIND = {"link": "behind", "pictures": "pictures"}
"""Links, and the beginning of the names of the directories that they lead to."""


class Study:
    """A directory with a study in it: a trained model, one in a directory, one behind a link.

    Args:
        directory: Where it is made.
        of_images: Whether it also has a model of images, which are behind a link.
    """

    def __init__(self, directory: Path, of_images: bool = False) -> None:
        self.directory = directory
        self.files = {"mine.jsonl": 0, "questions.jsonl": 0, "local": 0, "link": 0}
        self.config: dict[str, Any] = {
            "study": "walk",
            "models": {
                "small": {
                    "train": {"hidden_size": 16, "blocks": 2, "heads": 2, "steps": 8},
                    "checkpoints": [0, 8],
                    "family": "a",
                },
                "local": {"path": "local", "family": "a"},
                "linked": {"path": "link"},
            },
            "datasets": {"mine": {"path": "mine.jsonl"}},
            "extract": {"k": 4, "tolerance": 1e-4, "device": "auto"},
            "reduce": {"k": [1, 4], "variants": ["frobenius"]},
            "score": {"harness": {"mine": QUESTIONS}, "name": "heldout"},
            "correlate": {"k": 4, "variant": "frobenius", "bootstrap": 20},
            "figures": {"formats": ["png"]},
        }
        directory.mkdir(parents=True)
        if of_images:
            self.files["pictures"] = 0
            self.config["models"]["seeing"] = {"train": VIT, "checkpoints": [0, 2]}
            self.config["datasets"]["seen"] = {"images": PICTURES}
        for number in (0, 1):
            _model(directory / f"behind{number}", f"behind {number}")
            _pictures(directory / f"pictures{number}", number)
        for name in self.files:
            self.write(name, 0)
        self.configure()

    def key(self) -> str:
        return json.dumps([self.config, self.files], sort_keys=True)

    def configure(self) -> None:
        (self.directory / "study.yaml").write_text(yaml.safe_dump(self.config))

    def write(self, name: str, number: int, old: bool = False) -> None:
        """Give a file, a model's directory or a link its content of that number."""
        self.files[name] = number
        path = self.directory / name
        written = [path]
        if name in BEHIND:
            path.unlink(missing_ok=True)
            path.symlink_to(f"{BEHIND[name]}{number}")
            return
        if name == "mine.jsonl":
            path.write_text(json.dumps({"text": f"prompt {number}"}) + "\n")
        elif name == "questions.jsonl":
            question = {"question": f"{number}?", "choices": ["a", "b"], "answer": 0}
            path.write_text(json.dumps(question) + "\n")
        else:
            written = _model(path, f"local {number}")
        if old:
            for file in written:
                os.utime(file, (10**9, 10**9))

    def outputs(self) -> dict[str, str]:
        """Everything that numbers stand in, by name."""
        found = {}
        for folder in ("tables", "scores", "statistics", "figures", "models", "prompts"):
            for path in (self.directory / RESULTS / folder).rglob("*"):
                if path.is_file():
                    found[str(path.relative_to(self.directory))] = path.read_text()
        report = self.directory / RESULTS / "report.html"
        return found | {"report": report.read_text()}


def _pictures(path: Path, number: int) -> None:
    """A folder of images; every other one is older than whatever was made from those before."""
    for split in ("train", "test"):
        file = path / split / "grey" / "one.png"
        file.parent.mkdir(parents=True)
        Image.new("L", (8, 8), 50 + number).save(file)
        if number % 2:
            os.utime(file, (10**9, 10**9))


def _model(path: Path, weights: str) -> list[Path]:
    path.mkdir(exist_ok=True)
    config = {"num_hidden_layers": 2, "hidden_size": 16, "model_type": "gpt_neox", "vocab_size": 9}
    words = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    header = json.dumps({"__metadata__": {"weights": weights}, "x": tensor}).encode()
    contents = {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": json.dumps({"version": "1.0", "model": words}).encode(),
        "model.safetensors": len(header).to_bytes(8, "little") + header + bytes(4),
    }
    for name, content in contents.items():
        (path / name).write_bytes(content)
    return [path / name for name in contents]


# ------------------------------------------------------------------------------------ Snakemake


def snakemake(directory: Path, *words: str) -> int:
    """Run Snakemake in a process group of its own; its exit status, or minus a signal."""
    if (
        "snakemake.cli" not in sys.modules
    ):  # a process that runs tests has threads: not to be forked
        server = _server()
        assert server.stdin and server.stdout
        server.stdin.write(json.dumps([str(directory), *words]) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline())
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(directory)
        os.environ["SNAKEMAKE_PID"] = str(os.getpid())
        snakefile = str(HERE.parents[1] / "Snakefile")
        fixed = ["--snakefile", snakefile, "--cores", "2"]
        if (queue := Path("queue.json")).exists():
            _queue(**json.loads(queue.read_text()))
        os._exit(_snakemake([*fixed, *words, "--configfile", "study.yaml"]))
    _, ended = os.waitpid(child, 0)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # nothing that it has started goes on
    return os.waitstatus_to_exitcode(ended)


@functools.cache
def _server() -> subprocess.Popen[str]:
    """A process that imports Snakemake once and is forked for each run, which saves each 3 s."""
    command = [sys.executable, __file__, "--serve"]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    atexit.register(server.communicate)  # no more lines: it ends
    return server


def _serve() -> None:
    for line in sys.stdin:
        directory, *words = json.loads(line)
        print(snakemake(Path(directory), *words), flush=True)


def _snakemake(words: Sequence[str]) -> int:
    from snakemake.cli import main

    # Tests that run in the background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The Snakefile puts the verbs next to this Python first.
    sys.executable = str(HERE / "stub" / "python")
    with (
        Path(os.devnull).open() as nothing,
        Path("snakemake.log").open("a") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            main(list(words))
        except SystemExit as end:
            return int(end.code or 0)
        except KeyboardInterrupt:
            return 130
    return 0


def _queue(rule: str, jobs: int) -> None:
    """Have the first jobs of a rule read the configuration when they start, as on a cluster.

    They are processes of their own. Before the first one starts, `edited.yaml` has replaced the
    configuration that the run began with.
    """
    from snakemake.executors.local import Executor

    run, waiting = Executor.run_single_job, [None] * jobs

    def run_single_job(self: Any, job: Any) -> Any:
        if job.rule.name != rule or not waiting:
            return run(self, job)
        waiting.pop()
        with suppress(FileNotFoundError):
            Path("edited.yaml").replace("study.yaml")
        return self.pool.submit(self.cached_or_run, job, self.spawn_job, job)

    Executor.run_single_job = run_single_job
    python = shlex.join([PYTHON, __file__, "--job"])
    Executor.get_python_executable = lambda self: python


def calls(directory: Path) -> list[str]:
    """The verbs that have been called since this was last asked."""
    log = directory / "calls.log"
    said = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return said


# ---------------------------------------------------------------------------------------- steps


def _edits(study: Study, chance: random.Random) -> Iterator[tuple[str, Callable[[], None]]]:
    """Other settings in the configuration."""
    config = study.config
    models = config["models"]

    def toggle(place: dict[str, Any], key: str, *values: Any) -> Callable[[], None]:
        def change() -> None:
            others = [value for value in values if value != place.get(key)]
            place[key] = chance.choice(others)

        return change

    def swap(place: dict[str, Any], key: str, value: Any) -> Callable[[], None]:
        def change() -> None:
            if key in place:
                del place[key]
            else:
                place[key] = value

        return change

    if "small" in models:
        small = models["small"]
        yield "seed", toggle(small["train"], "seed", 0, 7)
        yield "checkpoints", toggle(small, "checkpoints", [0, 8], [8], [0, 2, 8], [0, 2], [2, 4, 8])
        yield "init", toggle(small, "init", False, True)
    if "local" in models:
        yield "family", toggle(models["local"], "family", "a", "b")
        yield (
            "a model in or out",
            swap(
                models,
                "added",
                {
                    "train": {"hidden_size": 16, "blocks": 3, "heads": 2, "steps": 2},
                    "checkpoints": [2],
                },
            ),
        )
    yield "tolerance", toggle(config["extract"], "tolerance", 1e-4, 1e-3)
    yield "device", toggle(config["extract"], "device", "auto", "cpu")
    yield "K", toggle(config["reduce"], "k", [1, 4], [4], [2, 4])
    yield (
        "variants",
        toggle(config["reduce"], "variants", ["frobenius"], ["frobenius", "swapped"]),
    )
    yield "bootstrap", toggle(config["correlate"], "bootstrap", 20, 30)
    yield "formats", toggle(config["figures"], "formats", ["png"], ["png", "pdf"])
    yield "a dataset in or out", swap(config["datasets"], "built-in", {"name": "handwritten"})
    yield "a task in or out", swap(config["score"]["harness"], "again", QUESTIONS)


def _replacements(study: Study, chance: random.Random) -> Iterator[tuple[str, Callable[[], None]]]:
    """Other content of the user's files, which may be older than what was made from them."""
    for name in study.files:
        old = chance.random() < 0.5
        number = chance.choice([n for n in (0, 1) if n != study.files[name]])
        yield (
            f"{name} {number}{' (old)' * old}",
            lambda n=name, o=old, m=number: study.write(n, m, o),
        )


def _edit(study: Study, chance: random.Random) -> str:
    edits = [*_edits(study, chance), *_replacements(study, chance)]
    name, change = chance.choice(edits)
    change()
    study.configure()
    return name


def _edit_in_the_queue(study: Study, chance: random.Random) -> str:
    """The configuration is edited while jobs wait, and put back or not when the run has ended."""
    before = copy.deepcopy(study.config)
    name, change = chance.choice(list(_edits(study, chance)))
    change()
    edited, study.config = study.config, before
    rule = chance.choice(QUEUED)
    (study.directory / "edited.yaml").write_text(yaml.safe_dump(edited))
    queue = study.directory / "queue.json"
    queue.write_text(json.dumps({"rule": rule, "jobs": 2}))
    status = unlocked(study, *chance.choice([[], ["--keep-going"], ["--forcerun", rule]]))
    for file in (queue, study.directory / "edited.yaml"):
        file.unlink(missing_ok=True)
    if stays := chance.random() < 0.3:
        study.config = edited
    study.configure()
    return f"run with {rule} in the queue, {name} meanwhile, {'kept' * stays or 'back'} -> {status}"


def _run(study: Study, chance: random.Random) -> str:
    """A run of some kind, to its end or not."""
    kinds = ["plain", "until", "job", "job", "all", "all", "force", "target", "dry", "times"]
    kind = chance.choice(kinds)
    words: list[str] = []
    fate = study.directory / "fate.json"
    if kind == "until":
        words = ["--until", chance.choice(RULES)]
    elif kind == "dry":
        words = ["--dry-run"]
    elif kind == "times":
        words = ["--rerun-triggers", "mtime"]
    elif kind == "target":
        words = [chance.choice(["models", "prompt_sets", "measurements"])]
    elif kind in ("job", "all", "force"):
        doom = {
            "verb": chance.choice(VERBS),
            "calls": chance.choice([0, 0, 1, 2, 4]),
            "writes": chance.choice([0, 1, 2, 5]),
            "whom": {"job": "job", "all": "all", "force": "snakemake"}[kind],
            "once": chance.random() < 0.5 or kind != "job",
        }
        fate.write_text(json.dumps(doom))
        words = chance.choice([[], ["--keep-going"]])
        if kind == "force":
            words = ["--forcerun", chance.choice(RULES)]
        kind = f"{kind} {doom}"
    status = unlocked(study, *words)
    fate.unlink(missing_ok=True)
    return f"run {kind} {' '.join(words)} -> {status}"


def unlocked(study: Study, *words: str) -> int:
    locks = study.directory / ".snakemake" / "locks"
    if locks.exists() and any(locks.iterdir()):
        snakemake(study.directory, "--unlock")
    return snakemake(study.directory, *words)


def _removal(study: Study, chance: random.Random) -> str:
    """Any file or directory of the results, or the catalog.

    Not a chunk alone out of a store: Snakemake knows a store by its `zarr.json`. Reading such
    a store is an error, and `blockcoupling verify` finds it; other tests test both.
    """
    catalog = study.directory / "catalog" / "walk.yml"
    there = sorted(p for p in (study.directory / RESULTS).rglob("*") if p.name != "data")
    folders = [path for path in there if path.is_dir()]
    path = chance.choice([*[chance.choice(some) for some in (there, folders) if some], catalog])
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return f"removed {path.relative_to(study.directory)}"


def _forgetting(study: Study, chance: random.Random) -> str:
    """Snakemake's own records are lost, by themselves or because the study is copied elsewhere."""
    if chance.random() < 0.5:
        shutil.rmtree(study.directory / ".snakemake", ignore_errors=True)
        return "removed .snakemake"
    elsewhere = study.directory.with_name(f"{study.directory.name}-copy")
    shutil.copytree(
        study.directory, elsewhere, symlinks=True, ignore=shutil.ignore_patterns(".snakemake")
    )
    shutil.rmtree(study.directory)
    study.directory = elsewhere
    return "copied without .snakemake"


class Walks:
    """Walks in a directory, and what fresh runs gave, by what they were of."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._fresh: dict[str, dict[str, str]] = {}

    def fresh(self, study: Study) -> dict[str, str]:
        key = study.key()
        if key not in self._fresh:
            place = self.directory / f"fresh-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
            other = Study(place, "pictures" in study.files)
            other.config = study.config
            other.configure()
            for name, number in study.files.items():
                other.write(name, number)
            status = snakemake(place)
            assert status == 0, f"a fresh run failed; see {place}/snakemake.log"
            self._fresh[key] = other.outputs()
            shutil.rmtree(place)
        return self._fresh[key]

    def walk(self, seed: int, steps: int = 4) -> list[str]:
        """One walk; returns what is wrong, after the steps that led there; empty: nothing."""
        chance = random.Random(seed)
        study = Study(self.directory / f"walk{seed}", of_images=chance.random() < 0.3)
        took = ["a study of images too"] * ("pictures" in study.files)
        if chance.random() < 0.8:  # from a finished study
            took.append(f"run plain -> {snakemake(study.directory)}")
        for _ in range(chance.randint(1, steps)):
            kind = chance.choice(
                [_edit, _edit, _edit, _edit, _removal, _removal, _forgetting, _edit_in_the_queue]
            )
            took.append(kind(study, chance))
            if kind is not _edit_in_the_queue and chance.random() < 0.8:
                took.append(_run(study, chance))
        wrong = self.wrong(study)
        if not wrong:
            shutil.rmtree(study.directory)
        return [*took, *wrong] if wrong else []

    def wrong(self, study: Study) -> list[str]:
        """What one plain run leaves different from a fresh one."""
        if status := unlocked(study):
            return [f"FAILED: {status}, see {study.directory}/snakemake.log"]
        expected, found = self.fresh(study), study.outputs()
        there = {name: found.get(name) for name in expected}
        wrong = [f"STALE: {name}" for name in expected if there[name] != expected[name]]
        calls(study.directory)
        if status := snakemake(study.directory):
            wrong.append(f"FAILED: {status}")
        wrong += [f"AGAIN: {call}" for call in calls(study.directory)]
        return wrong


def main() -> None:
    """Walk, and exit with 1 where a walk ended wrongly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--walks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first walk")
    parser.add_argument("--seconds", type=float, help="begin no walk after this many seconds")
    parser.add_argument("--directory", type=Path, help="kept, for looking at what went wrong")
    chosen = parser.parse_args()
    directory = chosen.directory or Path(tempfile.mkdtemp())
    walks, began, failed = Walks(directory), time.monotonic(), []
    walked = 0
    for seed in range(chosen.seed, chosen.seed + chosen.walks):
        if chosen.seconds and walked and time.monotonic() - began > chosen.seconds:
            break
        walked += 1
        if told := walks.walk(seed):
            failed.append(seed)
            print(f"walk {seed}:", *told, sep="\n  ", flush=True)
    took = time.monotonic() - began
    print(f"{walked} walks, {len(failed)} ended wrongly {failed or ''} ({took:.0f} s)")
    sys.exit(bool(failed))


if __name__ == "__main__":
    import snakemake.cli as _imported_once  # noqa: F401

    if sys.argv[1:] == ["--serve"]:
        _serve()
    elif sys.argv[1:2] == ["--job"]:  # of `_queue`: -m snakemake, then its words
        sys.exit(_snakemake(sys.argv[4:]))
    else:
        main()
