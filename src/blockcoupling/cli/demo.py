"""The built-in study in a directory of one's own, without a clone of the repository."""

import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from blockcoupling.cli.app import app
from blockcoupling.cli.options import ONE_MODEL
from blockcoupling.errors import UserError


@app.command(rich_help_panel=ONE_MODEL)
def demo(
    directory: Annotated[Path, typer.Argument(help="Directory for the study; created if missing.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the jobs that would run.")
    ] = False,
) -> None:
    """Run the built-in study in a directory: train small models, measure them, write a report.

    The directory gets the workflow, its profiles and the configurations, which can be edited.
    Run `snakemake` there for a study of your own, or `blockcoupling demo` again to resume.

    Example:  `blockcoupling demo coupling-demo`
    """
    import snakemake  # noqa: F401 (so that a missing extra is explained)

    copy_study(directory)
    command = [sys.executable, "-m", "snakemake", *(["--dry-run"] if dry_run else [])]
    # Jobs run `blockcoupling`, which is next to this Python, also if that is not activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    ended = subprocess.run(command, cwd=directory, env={**os.environ, "PATH": path}, check=False)
    if ended.returncode:
        raise typer.Exit(ended.returncode)


def copy_study(directory: Path) -> None:
    """Copy the workflow, its profiles and the configurations; existing files are kept.

    Raises:
        UserError: The directory is a file.
    """
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file; name a directory for the study")
    with resources.as_file(resources.files("blockcoupling") / "demo") as packaged:
        shutil.copytree(packaged, directory, copy_function=_copy_missing, dirs_exist_ok=True)


def _copy_missing(source: str, target: str) -> None:
    if not Path(target).exists():
        shutil.copyfile(source, target)
