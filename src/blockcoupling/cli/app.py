"""The program: options of all verbs, and exit statuses."""

import logging
from contextvars import ContextVar
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from blockcoupling.cli.secrets import hide_secrets
from blockcoupling.computing import by_threads
from blockcoupling.errors import (
    MeasurementError,
    UserError,
    explained_imports,
    system_error,
    system_sentence,
)

words_typed: ContextVar[tuple[str, ...]] = ContextVar("words_typed", default=())
"""The command line of the verb that runs, after `blockcoupling`."""


class _Verbs(TyperGroup):
    """Ends a failed verb with its message only; the exit status shows the kind of failure."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["words"] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        before = words_typed.set(ctx.meta["words"])
        try:
            with explained_imports():
                return super().invoke(ctx)
        except (UserError, MeasurementError) as error:
            if ctx.params["debug"]:
                raise
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2 if isinstance(error, UserError) else 3) from None
        except (TyperException, typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:
            # A full disk or a missing permission is not a fault of the program.
            found = system_error(error)
            if found is None or ctx.params["debug"]:
                raise
            typer.echo(f"error: {system_sentence(found)}", err=True)
            raise typer.Exit(2) from None
        finally:
            words_typed.reset(before)


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; exit status 2: wrong input, 3: a measurement that cannot be trusted."""
    hide_secrets()
    by_threads()
    app()


CITATION = (
    "If you use it, please cite it and Aubry, Meng, Sugolov & Papyan: Transformer Block Coupling "
    "and its Correlation with Generalization in LLMs, ICLR 2025, arXiv:2407.07810"
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import blockcoupling

        typer.echo(f"blockcoupling {blockcoupling.__version__}\n{CITATION}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Version and citation."
        ),
    ] = False,
) -> None:
    """Measure how well the blocks of a transformer are coupled.

    Start with one model:  `blockcoupling measure MODEL "a prompt"`

    The other verbs are the steps of a study, which `snakemake` runs.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
