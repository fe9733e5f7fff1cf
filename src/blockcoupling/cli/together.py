"""Several steps of a study in one process, which imports packages and loads a model once."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from blockcoupling.cli.app import app
from blockcoupling.cli.knobs import read_json
from blockcoupling.cli.options import STEPS
from blockcoupling.cli.shared import benchmarked, logged, run_words
from blockcoupling.errors import UserError

KEYS = ("name", "chain", "words", "log", "benchmark")


@app.command(rich_help_panel=STEPS)
def together(
    jobs: Annotated[
        str,
        typer.Argument(
            metavar="JSON|@FILE",
            help="A list of jobs in JSON, or @ and the name of a file that holds it.",
        ),
    ],
) -> None:
    r"""Run several verbs in one process, one after another, each with a log of its own.

    A job has a `name`, the `words` of its command line, a `log` and a `benchmark` to write, and a
    `chain`. If a job fails, the rest of its chain is skipped, and all other jobs are done. After a
    kill, each verb resumes as it does by itself. Failed jobs are listed at the end.

    Example:  `blockcoupling together '[{"name": "the prompts", "chain": "a", "log": "prompts.log",
    "benchmark": "prompts.tsv", "words": ["prompts", "--out", "prompts.jsonl", "--spec",
    "{\"source\": \"builtin\", \"name\": \"handwritten\"}"]}]'`
    """
    from blockcoupling.progress import Progress
    from blockcoupling.sources.kept import keeping_models

    listed = _listed(read_json(jobs, "the list of jobs"))
    failed: dict[str, tuple[int, str]] = {}
    with Progress(len(listed), "running", "job") as progress, keeping_models():
        for job in listed:
            if job["chain"] not in failed:
                log = Path(job["log"])
                with benchmarked(Path(job["benchmark"])), logged(log):
                    status = run_words(job["words"])
                if status:
                    message = f"{job['name']} failed; its log, {log}, ends:\n{_end(log)}"
                    failed[job["chain"]] = status, message
            progress.advance(job["name"])
    for _, message in failed.values():
        typer.echo(message, err=True)
    if failed:
        raise typer.Exit(max(status for status, _ in failed.values()))


def _listed(jobs: Any) -> list[dict[str, Any]]:
    if not isinstance(jobs, list) or not all(
        isinstance(job, dict) and all(key in job for key in KEYS) for job in jobs
    ):
        example = json.dumps(dict.fromkeys(KEYS, "…"), ensure_ascii=False)
        raise UserError(f"the list of jobs must be a JSON list of {example}")
    return jobs


def _end(log: Path) -> str:
    """The last lines of a log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-5:])
