"""Where models come from: finding out what a model is, and loading it as its record says.

torch and transformers are imported when a function needs them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockcoupling.errors import UserError, explained_imports, importable
from blockcoupling.progress import plain_libraries
from blockcoupling.sources.hub import Snapshot, download_model
from blockcoupling.sources.identity import content_identity, demand_same_content
from blockcoupling.sources.kept import kept
from blockcoupling.sources.kinds import Kind, class_of, kind_of, predicts
from blockcoupling.sources.local import (
    checkpoint_facts,
    checkpoint_problems,
    count_parameters,
    own_config,
    processor_problem,
    read_config,
    tokenizer_problem,
)
from blockcoupling.sources.quantization import (
    refuse_broken_dequantization,
    refuse_unrounded,
    rounding,
)
from blockcoupling.sources.records import read_record, spec_from_argument, with_facts
from blockcoupling.transformer.weight_files import stored_tensors

if TYPE_CHECKING:
    from blockcoupling.transformer.streaming import StreamedModel

_LONGEST_REASON = 400  # characters of another library's message
_LOADING = ("init_seed", "dtype", "quantization", "tokenizer", "trust_remote_code", "allow_pickle")


def model_record(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Find out what a model is, downloading it where it is on the hub.

    Args:
        spec: `Study.model_spec(model, checkpoint)`, or `spec_from_argument(...)`.

    Returns:
        `name`, `checkpoint`, `source`, `step`; where it is (`path`, or `id` with `revision`, the
        commit, and `revision_requested`); how to load it (`init_seed`, `dtype`, `quantization`,
        `tokenizer`, `trust_remote_code`, `allow_pickle`); `architecture`, `model_type`,
        `parameters`, `blocks`, `dimension`, `context` (None if unlimited or unknown),
        `vocabulary`; `modality` (what it takes: text or image) and `causal` (whether it is
        causal, according to its configuration); `family`, `tokens`, `base`, `facts` as given; and
        `identity`, what decides the numbers (`sources.identity`).

    Raises:
        UserError: the model is missing, cannot be loaded as asked, or has fewer than two blocks.
    """
    place = {"id", "revision"} if spec.get("source") == "hub" else {"path"}
    if missing := {"name", "checkpoint", "source", *place} - {k for k in spec if spec[k]}:
        raise UserError(f"the description of the model has no {', '.join(sorted(missing))}")
    record: dict[str, Any] = {
        "name": spec["name"],
        "checkpoint": spec["checkpoint"],
        "source": spec["source"],
        "step": spec.get("step"),
        **{key: spec.get(key) for key in _LOADING},
        **dict.fromkeys(["family", "tokens", "base", "facts"]),
    }
    record["dtype"] = record["dtype"] or "float32"
    if spec["source"] == "hub":
        record |= {"id": spec["id"], "revision_requested": spec["revision"]}
        record["revision"] = spec["revision"]
        snapshot = _download(record)
        record["revision"] = snapshot.commit
        path = snapshot.path
    else:
        path = Path(spec["path"])
        record["path"] = str(path)
    _demand_whole(record, path, processor=False)
    modality = spec.get("modality") or "text"
    record |= checkpoint_facts(path) | {"modality": modality, "causal": modality == "text"}
    if spec["source"] == "train":
        # Its files hold its parameters and nothing else: no need to build the model.
        record["parameters"] = count_parameters(path)
        record["tokens"] = _tokens_seen(path, record)
    else:
        record |= _facts_of_class(path, record)
    if record["blocks"] is not None and record["blocks"] < 2:
        raise UserError(
            f"{_title(record)} has {record['blocks']} block: coupling is between blocks, and "
            "needs two"
        )
    record["identity"] = content_identity(record, path)
    return with_facts(record, spec)


def record_of(argument: str, **options: Any) -> dict[str, Any]:
    """The record of a model given by one word: a directory, or a hub id with `@revision`.

    Args:
        argument: the word.
        options: further keys of the description, such as `trust_remote_code`.
    """
    return model_record(spec_from_argument(argument) | options)


def stored_in(record: Mapping[str, Any]) -> Path:
    """The directory of a model's files, downloaded if needed; complete, and as in its record.

    Raises:
        UserError: they are not.
    """
    return _directory(record)


def takes_images(record: Mapping[str, Any]) -> bool:
    """Whether the model of a record takes images."""
    return record.get("modality") == "image"


def _demand_whole(record: Mapping[str, Any], path: Path, processor: bool) -> None:
    """Refuse a directory whose files show that it cannot be measured.

    Args:
        record: The model's.
        path: The directory.
        processor: Also check its tokenizer or image processor.
    """
    problems = checkpoint_problems(
        path, bool(record.get("allow_pickle")), weights=record.get("init_seed") is None
    )
    problem = processor_problem if takes_images(record) else tokenizer_problem
    if processor and (wrong := problem(record.get("tokenizer") or path)):
        problems.append(wrong)
    if problems:
        raise UserError("\n".join(f"{_title(record)}: {problem}" for problem in problems))


def with_identity(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record, with the identity of its files as they are now and as it has them loaded."""
    return {**record, "identity": content_identity(record, _directory(record))}


@kept(lambda record: _directory(record))  # noqa: PLW0108 (it is defined below)
def load_model(
    record: Mapping[str, Any] | Path | str, device: str = "auto", dtype: str | None = None
) -> tuple[Any, Any]:
    """Load the model that a record describes, and its tokenizer or, of images, its processor.

    The model has eager attention (the only kind that can be differentiated everywhere), is in
    evaluation mode, and its parameters ask for no gradient. A quantized model is turned back into
    float32 at once, before any forward pass: on a CPU quantized kernels have no gradient, and say
    so only by Jacobians that are exactly the identity.

    Args:
        record: What `model_record` returned, or the file it was written to.
        device: Where the model goes, in torch's words; "auto" is a GPU where there is one.
        dtype: What the weights are converted to after they have been loaded in the record's
            `dtype`; by default they stay as loaded (quantized ones: float32).

    Returns:
        (model, tokenizer or image processor)

    Raises:
        UserError: it cannot be loaded as the record asks.
    """
    import torch

    plain_libraries()
    device = _device(device)
    if not isinstance(record, Mapping):
        record = read_record(record)
    path = _directory(record)
    trust = bool(record.get("trust_remote_code"))
    with _explained(record):
        initialised = record.get("init_seed") is not None
        model = (_initialised if initialised else _pretrained)(record, path, trust)
        preparing = (_processor if takes_images(record) else _tokenizer)(record, path, trust)
    demand_same_content(record, path, _title(record))  # nor written to while it was read
    device = _device(device)
    model = model.to(device=device, dtype=dtype and getattr(torch, dtype))
    return model.eval().requires_grad_(False), preparing


@kept(lambda record: _directory(record))  # noqa: PLW0108 (it is defined below)
def load_streamed(
    record: Mapping[str, Any], device: str = "auto", dtype: str = "float32"
) -> tuple[StreamedModel, Any]:
    """Set up the model that a record describes for streaming, a block in memory at a time.

    Args:
        record: What `model_record` returned.
        device: Where blocks are brought; "auto" is a GPU where there is one.
        dtype: Type of the weights in memory.

    Returns:
        (streamed model, tokenizer)

    Raises:
        UserError: it cannot be streamed: quantized or re-initialised, converted on loading, or no
            causal language model.
    """
    import torch

    from blockcoupling.transformer.streaming import stream_model

    if record.get("quantization") or record.get("init_seed") is not None:
        raise UserError(
            f"{_title(record)}: weights are streamed from files as they are; a quantized or newly "
            "initialised model is measured in memory (set extract.stream: false)"
        )
    if not record.get("causal", True):
        raise UserError(
            f"{_title(record)}: only causal language models can be streamed; a bidirectional model "
            "is measured in memory (set extract.stream: false)"
        )
    device = _device(device)
    path = _directory(record)
    with _explained(record):
        trust = bool(record.get("trust_remote_code"))
        kind, _ = _class_and_config(record, path, trust)
        of_type = getattr(torch, dtype)
        streamed = stream_model(path, of_type, device, loaded_as=kind, trust_remote_code=trust)
        return streamed, _tokenizer(record, path, trust)


def _device(asked: str) -> str:
    """A device that is there, in torch's words."""
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        there = torch.empty(1, device=asked).device.type != "meta"
    except (RuntimeError, AssertionError, NotImplementedError):
        there = False
    if not there:
        raise UserError(
            f"device {asked!r}: torch cannot use such a device on this machine. Choose auto, which "
            "takes a GPU where there is one, or cpu."
        )
    return asked


def _directory(record: Mapping[str, Any]) -> Path:
    """The directory of a model's files, downloaded if needed; complete, and as in its record."""
    path = _download(record).path if record["source"] == "hub" else Path(record["path"])
    # First what is wrong with the files: that says more than that they have changed.
    _demand_whole(record, path, processor=True)
    demand_same_content(record, path, _title(record))
    return path


def _tokenizer(record: Mapping[str, Any], path: Path, trust: bool) -> Any:
    from transformers import AutoTokenizer

    place = Path(record.get("tokenizer") or path)
    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=trust)
    except Exception as error:  # transformers names what it tries last, tiktoken
        sentencepiece = any(place.glob("*.model")) and not (place / "tokenizer.json").exists()
        for module in ("sentencepiece", "google.protobuf") if sentencepiece else ():
            if not importable(module):
                raise ModuleNotFoundError(name=module) from error
        raise


def _processor(record: Mapping[str, Any], path: Path, trust: bool) -> Any:
    from blockcoupling.sources.preprocessing import image_processor

    return image_processor(Path(record.get("tokenizer") or path), trust)


def _class_and_config(record: Mapping[str, Any], path: Path, trust: bool) -> tuple[Any, Any]:
    """The class that a model is loaded as, and its configuration."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path, trust_remote_code=trust)
    saved = checkpoint_facts(path)["architecture"]  # the record has the class of the part
    return class_of(config, saved, record.get("causal", True), trust), config


def _of(kind: Any, config: Any, trust: bool, **options: Any) -> Any:
    """A model of a class with new weights."""
    if hasattr(kind, "from_config"):
        return kind.from_config(config, trust_remote_code=trust, **options)
    return kind._from_config(config, **options)


def _initialised(record: Mapping[str, Any], path: Path, trust: bool) -> Any:
    """The configuration's model with weights re-initialised by the record's seed."""
    import torch

    kind, config = _class_and_config(record, path, trust)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(record["init_seed"])
        dtype = getattr(torch, record["dtype"])
        model = _of(kind, config, trust, dtype=dtype, attn_implementation="eager")
    return model.get_submodule(record.get("part") or "")


def _pretrained(record: Mapping[str, Any], path: Path, trust: bool) -> Any:
    import torch

    from blockcoupling.transformer.unused_weights import refuse_unused, unused_by

    quantization = record.get("quantization")
    kind, config = _class_and_config(record, path, trust)
    with torch.random.fork_rng(devices=[]):  # what is missing is drawn at random
        whole, loading = kind.from_pretrained(
            path,
            config=config,
            trust_remote_code=trust,
            use_safetensors=None if record.get("allow_pickle") else True,
            dtype=getattr(torch, record["dtype"]),
            attn_implementation="eager",
            quantization_config=rounding(quantization) if quantization else None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are named below
        )
    model = whole
    # transformers fills these with random numbers and continues.
    missing = {*loading["missing_keys"], *(m[0] for m in loading["mismatched_keys"])}
    if part := record.get("part"):
        model = model.get_submodule(part)
        missing = {name for name in missing if name.startswith(f"{part}.")}
    if absent := sorted(missing):
        body = f"{model.base_model_prefix}."
        if part or model.base_model is model or any(name.startswith(body) for name in absent):
            raise ValueError(
                f"{len(absent)} weights are missing from its files or have another shape: "
                f"{', '.join(absent[:5])}"
            )
        # The directory holds the body alone, or with another head. Blocks need none.
        model = model.base_model
    stored = {*stored_tensors(path), *whole.state_dict()}
    refuse_unused(whole, unused_by(whole, loading["unexpected_keys"]), stored)
    if not quantization:
        return model
    refuse_unrounded(model)
    refuse_broken_dequantization(model)
    return model.dequantize().float()


def _facts_of_class(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Facts that transformers' class for the configuration tells, without any weights."""
    import torch
    from transformers import AutoConfig

    plain_libraries()
    stored = read_config(path)
    trust = bool(record.get("trust_remote_code"))
    if quantized := stored.get("quantization_config"):
        known = isinstance(quantized, dict)
        method = quantized.get("quant_method", "unknown") if known else "unknown"
        raise UserError(
            f"{_title(record)} is stored quantized ({method}), and cannot be differentiated; use "
            "the unquantized weights, with quantization: nf4, nf4-double or int8 where wanted"
        )
    _known(_title(record), own_config(path), trust)
    images = takes_images(record)  # as the description of the model asks
    with _explained(record), torch.device("meta"):
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust)
        causal = predicts(config, trust)
        loaded_as = class_of(config, record["architecture"], bool(causal) and not images, trust)
        # Else transformers would fetch, and run, the kernels that a configuration may name.
        model = _of(loaded_as, config, trust, attn_implementation="eager")
        if causal is None or images:
            kind = kind_of(_title(record), model, images)
        else:
            kind = Kind("text", causal)
        if record.get("quantization"):
            refuse_unrounded(model)
    if kind.causal and _holds_no_head(path, model):
        model = model.base_model
    model = model.get_submodule(kind.part)
    of_part = getattr(model, "config", config) if kind.part else config.get_text_config()
    facts = {
        "architecture": type(model).__name__,
        "model_type": getattr(of_part, "model_type", None) if kind.part else record["model_type"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "blocks": getattr(of_part, "num_hidden_layers", None),
        "dimension": getattr(of_part, "hidden_size", None),
        "context": getattr(of_part, "max_position_embeddings", None),
        "vocabulary": getattr(of_part, "vocab_size", None),
    }
    return {key: value for key, value in facts.items() if value is not None} | asdict(kind)


def _known(title: str, stored: Mapping[str, Any], trust: bool) -> None:
    """Refuse a kind of model that transformers does not know, without code that is trusted."""
    from transformers import __version__
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if stored.get("model_type") in CONFIG_MAPPING_NAMES or (trust and "auto_map" in stored):
        return
    if "auto_map" in stored:
        raise UserError(
            f"{title} comes with Python code of its own, which would be run; read it, and "
            "set trust_remote_code: true (in a study) or --trust-remote-code if you trust it"
        )
    raise UserError(
        f"{title}: transformers {__version__} does not know its model_type, "
        f"{stored.get('model_type')}, and no Python code comes with it; take a version of "
        "transformers that does, or correct its config.json"
    )


def _holds_no_head(path: Path, model: Any) -> bool:
    """Whether the files hold fewer values than the whole model has, and enough for its body."""
    stored, whole, body = (
        count_parameters(path),
        *(sum(p.numel() for p in part.parameters()) for part in (model, model.base_model)),
    )
    return body <= stored < whole


def _tokens_seen(path: Path, record: Mapping[str, Any]) -> int | None:
    """Training tokens of a checkpoint trained here; none of images, or newly drawn weights."""
    if record["init_seed"] is not None or takes_images(record):
        return None
    return json.loads((path / "training.json").read_text(encoding="utf-8"))["tokens"]


def _download(record: Mapping[str, Any]) -> Snapshot:
    return download_model(
        record["id"],
        record["revision"],
        weights=record.get("init_seed") is None,
        allow_pickle=bool(record.get("allow_pickle")),
        trust_remote_code=bool(record.get("trust_remote_code")),
    )


def _title(record: Mapping[str, Any]) -> str:
    where = record.get("path") or f"{record['id']} at {record['revision']}"
    return f"model {record['name']}, checkpoint {record['checkpoint']} ({where})"


@contextmanager
def _explained(record: Mapping[str, Any]) -> Iterator[None]:
    """Turn what transformers raises over a model's files into a `UserError` that names it."""
    try:
        with explained_imports():
            yield
    except UserError:
        raise
    except Exception as error:  # of any type: transformers, safetensors, tokenizers, remote code
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]} …"
        raise UserError(f"{_title(record)} cannot be loaded: {reason}") from error
