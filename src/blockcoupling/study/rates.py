"""How fast a machine is: the rates that estimates of time are made of.

`blockcoupling calibrate` measures them and writes them to a file, which `plan`, `status` and the
requests of the workflow's rules read (key `rates` of a study). Without that file, they are guessed.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import PositiveFloat, PositiveInt, ValidationError

from blockcoupling.atomic import replacing
from blockcoupling.config.section import Section, Unit, mistakes, sentence
from blockcoupling.config.study import Study
from blockcoupling.config.yaml_file import read_yaml
from blockcoupling.errors import UserError

GUESSED = "rates guessed; run blockcoupling calibrate"


class Measured(Section):
    """What rates were measured on."""

    host: str = ""
    """Name of the machine, as the network knows it; empty: the rates are guessed."""
    device: str = ""
    """Model of the processor or GPU."""
    day: str = ""
    torch: str = ""
    """Version of torch."""

    def __str__(self) -> str:
        """For `plan`."""
        return f"{self.host} ({self.device}), {self.day}"


class Processor(Measured):
    """A machine without its GPUs; the defaults are those of a core of an ordinary server."""

    cores: Annotated[PositiveInt, Unit("cores")] = 8
    flops: Annotated[PositiveFloat, Unit("operations/s")] = 6e10
    """Floating-point operations of one core in matrix products, float32."""
    flops_float64: Annotated[PositiveFloat, Unit("operations/s")] = 3e10
    """The same in float64."""
    shared: Annotated[PositiveFloat, Unit("of a core")] = 0.9
    """What a further core adds to a product, compared with the first one."""
    memory: Annotated[PositiveFloat, Unit("bytes/s")] = 2e10
    """Reading memory, with one core."""
    read: Annotated[PositiveFloat, Unit("bytes/s")] = 1e9
    """Reading files of the directory in which it was measured, with an empty cache."""
    write: Annotated[PositiveFloat, Unit("bytes/s")] = 2e8
    """Writing a store of random numbers: compressed, with checksums."""
    start: Annotated[PositiveFloat, Unit("seconds")] = 6.0
    """Starting a process that loads torch and transformers."""
    start_tables: Annotated[PositiveFloat, Unit("seconds")] = 2.0
    """Starting a process that reads and writes stores and tables."""
    start_mb: Annotated[PositiveFloat, Unit("MB")] = 667.0
    """Memory of a process that has loaded torch and transformers."""
    call: Annotated[PositiveFloat, Unit("seconds")] = 1.2e-3
    """A small block forward and backward, whose time is that of Python and of launching kernels."""
    dense: Annotated[PositiveFloat, Unit("times")] = 1.0
    """Time of a whole Jacobian and its SVD, compared with its count of products."""
    iterated: Annotated[PositiveFloat, Unit("times")] = 1.0
    """Time of singular triples found by products, compared with their count."""


class Accelerator(Measured):
    """A GPU; the defaults are the rates of an NVIDIA H200 in docs/gpu.md."""

    flops: Annotated[PositiveFloat, Unit("operations/s")] = 5.1e13
    """Floating-point operations in matrix products, float32."""
    flops_float64: Annotated[PositiveFloat, Unit("operations/s")] = 2.5e13
    """The same in float64."""
    memory: Annotated[PositiveFloat, Unit("bytes/s")] = 3e12
    """Reading its memory."""
    copy_to: Annotated[PositiveFloat, Unit("bytes/s")] = 1e10
    """Copying from the machine's memory to the GPU's."""


class Rates(Section):
    """Rates of the machines that a study runs on: of a processor, and of a GPU."""

    processor: Processor = Processor()
    gpu: Accelerator = Accelerator()

    def source(self, on_gpu: bool) -> str:
        """Where they come from, in a sentence."""
        if not self.processor.host:
            return GUESSED
        said = f"rates of {self.processor}"
        if not on_gpu:
            return said
        if self.gpu.host:
            return f"{said}; GPU: {self.gpu}"
        return (
            f"{said}; GPU rates are those of an NVIDIA H200 in docs/gpu.md; "
            "run blockcoupling calibrate on a node with a GPU"
        )


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rates_of(study: Study) -> Rates:
    """The rates that a study's estimates are made of.

    Raises:
        UserError: its file of rates cannot be read.
    """
    return read_rates(study.rates)


def read_rates(path: Path) -> Rates:
    """Read a file of rates; guesses if it does not exist.

    Raises:
        UserError: it cannot be read, or has unknown or wrong values.
    """
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError:
        return Rates()
    except OSError as error:
        raise UserError(f"cannot read the rates {path}: {error.strerror}") from error
    return _read(path.absolute(), changed)


@lru_cache(maxsize=8)
def _read(path: Path, changed: int) -> Rates:
    try:
        return Rates.model_validate(read_yaml(path, "rates", "processor"))
    except ValidationError as error:
        raise UserError(mistakes(str(path), [sentence(line) for line in error.errors()])) from error


def as_text(found: Mapping[str, Measured]) -> str:
    """Measured rates, one a line, with their units and meaning."""
    lines = []
    for name, section in found.items():
        lines += [f"{name}: {section}"]
        for key, field in type(section).model_fields.items():
            units = [each for each in field.metadata if isinstance(each, Unit)]
            if units:
                lines.append(f"  {key}: {getattr(section, key):g} {units[0].name}")
    return "\n".join(lines)


def write_rates(path: Path, **found: Measured) -> Rates:
    """Write measured rates to a file; those of the other kind that it has stay.

    Args:
        path: The file.
        found: `processor`, `gpu`, or both.
    """
    rates = read_rates(path).model_copy(update=found)
    lines = [
        "# Written by `blockcoupling calibrate`: how fast the machines are that a study runs on.",
        "# `blockcoupling plan` and the requests of the workflow's jobs use these rates.",
    ]
    for name, section in (("processor", rates.processor), ("gpu", rates.gpu)):
        if section.host:
            lines.append(f"{name}:")
            lines += [
                f"  {key}: {json.dumps(value) if isinstance(value, str) else _number(value)}"
                for key, value in section
            ]
    with replacing(path) as fresh:
        fresh.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return rates
