"""Measuring one model without a study."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blockcoupling.cli.app import app
from blockcoupling.cli.knobs import Except, takes_settings
from blockcoupling.cli.options import ONE_MODEL
from blockcoupling.config.measurement import Extract, kept_for
from blockcoupling.config.presets import PRESETS
from blockcoupling.config.variants import DEFAULT_VARIANT, VariantName
from blockcoupling.errors import UserError

if TYPE_CHECKING:
    import xarray as xr


NOT_SHOWN = (
    *("k_when_smaller", "swapped", "overlaps", "vectors", "full", "parts", "detached"),
    *("eigenvalues", "cumulative", "readout"),
)


@app.command(rich_help_panel=ONE_MODEL)
@takes_settings
def measure(
    model: Annotated[str, typer.Argument(help="A directory, or a hub id, also with @REVISION.")],
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Texts to measure at.")
    ] = None,
    *,
    image: Annotated[
        list[Path] | None, typer.Option(help="Image file, for an image model; can be repeated.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Number of singular vectors.")] = 10,
    variant: Annotated[
        VariantName | None,
        typer.Option(help=f"Mis-coupling variant; default: {DEFAULT_VARIANT}."),
    ] = None,
    settings: Annotated[Extract, Except(without=NOT_SHOWN, also={"tokens": "--token"})],
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the code that comes with the weights.")
    ] = False,
    allow_pickle: Annotated[
        bool,
        typer.Option(
            "--allow-pickle",
            help="Read weights from .bin files (pickles) if there is no safetensors file.",
        ),
    ] = False,
    out: Annotated[Path, typer.Option(help="The figure to write.")] = Path("coupling.png"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure one model at your own prompts or images: a table on the screen and one figure.

    Example:  `blockcoupling measure HuggingFaceTB/SmolLM2-135M "The capital of France is"`
    """
    from blockcoupling.figures.quick import figure_format, quick_figure
    from blockcoupling.reduce.summary import summary

    figure_format(out)
    if variant is None:
        preset = settings.preset
        variant = DEFAULT_VARIANT if preset is None else PRESETS[preset].variants[0]
    settings = settings.model_copy(
        update={"k": k, "overlaps": True, "readout": 0, **kept_for([variant])}
    )
    if bool(prompts) == bool(image):
        raise UserError("give one or more PROMPTs, or --image for an image model")
    permissions = {"trust_remote_code": trust_remote_code, "allow_pickle": allow_pickle}
    ds = measured(model, prompts or [], settings, image or [], **permissions)
    quick_figure(ds, k, variant, model, out)
    table = summary(ds, k, variant)
    if as_json:
        typer.echo(table.to_json(orient="records", indent=2))
    else:  # a column per prompt: a row of all quantities would be too wide
        typer.echo(table.T.to_string(header=False))
    typer.echo(f"figure: {out}", err=True)


def measured(
    name: str,
    prompts: list[str],
    options: Extract,
    images: Sequence[Path] = (),
    **permissions: bool,
) -> "xr.Dataset":
    """Load a model and measure prompts or images on it.

    Args:
        name: A directory, or a hub id (with `@revision`).
        prompts: Texts.
        options: What to measure, and how.
        images: Image files, instead of texts.
        permissions: `trust_remote_code`, `allow_pickle`.

    Raises:
        UserError: The model, a prompt, an image or a setting cannot be used.
    """
    from blockcoupling.measurement.measure import measure
    from blockcoupling.measurement.prepare import module_of
    from blockcoupling.progress import Progress
    from blockcoupling.sources.image_folder import read_image
    from blockcoupling.sources.models import load_model, load_streamed, record_of, takes_images
    from blockcoupling.sources.preprocessing import prepared
    from blockcoupling.transformer.images import channels_of

    pictures = [read_image(file) for file in images]
    record = record_of(name, **permissions, **({"modality": "image"} if images else {}))
    if takes_images(record) != bool(images):
        wanted, remedy = (
            ("images", "--image FILE") if takes_images(record) else ("text", "a PROMPT")
        )
        raise UserError(f"{name} expects {wanted}: give {remedy}")
    load = load_streamed if options.stream else load_model
    loaded, processor = load(record, options.device, options.dtype)
    what: dict[str, Any] = {"tokenizer": processor, "prompts": prompts}
    if images:
        what = {"images": prepared(processor, pictures, channels_of(module_of(loaded)))}
    each = "image" if images else "prompt"
    with Progress(len(prompts) + len(images), "measuring", each) as progress:
        return measure(
            loaded,
            **what,
            batch=options.batch,
            progress=progress.advance,
            **options.settings.model_dump(),
        )
