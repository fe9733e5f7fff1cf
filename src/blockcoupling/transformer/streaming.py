"""A model larger than memory: one block's weights at a time, read from its safetensors files.

The model's modules are built without weights. Modules outside the module lists (embeddings, norms)
are filled; a member of a module list gets its weights when it is entered and loses them afterwards.
Several prompts pass through the blocks in lockstep, so a block is read once for all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from inspect import unwrap
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from blockcoupling.errors import UserError
from blockcoupling.transformer.running import replaced_forward, text_config, without_head
from blockcoupling.transformer.slices import linear_in_slices
from blockcoupling.transformer.unused_weights import refuse_unused, unused_by
from blockcoupling.transformer.weight_files import StoredTensor, stored_tensors, under_another_name

Result = TypeVar("Result")


class BlockWeights:
    """Reads the weights of one block at a time into memory.

    Args:
        model: its modules, with parameters on the meta device.
        files: every tensor of the safetensors files, by its name there.
        dtype: of the weights in memory.
        device: where they are kept.

    Raises:
        UserError: a parameter or saved buffer is not in the files under its own name and shape, or
            the files hold a tensor that the model does not use.
    """

    def __init__(
        self,
        model: nn.Module,
        files: Mapping[str, StoredTensor],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._files, self._dtype, self._device = files, dtype, device
        self._names: dict[int, str] = {}
        self._held: nn.Module | None = None
        self._from: list[int] = []
        self.reads = 0
        prefix = getattr(model, "base_model_prefix", "") + "."
        for name, module in model.named_modules():
            inside = any(name.startswith(outer + ".") for outer in self._names.values())
            if isinstance(module, nn.ModuleList) and len(module) and not inside:
                for index, member in enumerate(module):
                    self._names[id(member)] = f"{name}.{index}"
        self.members = [m for m in model.modules() if id(m) in self._names]
        state = model.state_dict(keep_vars=True)  # parameters, and the buffers that are saved
        aliases = {id(value): name for name, value in reversed(state.items())}
        self._stored = {
            name: self._find(name, prefix, value)
            for name, value in state.items()
            if self._needed(model, name) and aliases[id(value)] == name
        }
        refuse_unused(model, unused_by(model, files), files)
        outside = [
            n for n in self._stored if not any(n.startswith(m + ".") for m in self._names.values())
        ]
        for name in outside:
            self._fill(model, name)

    def _needed(self, model: nn.Module, name: str) -> bool:
        """Whether a parameter takes part: that of a skipped head does not."""
        return without_head(model) is model or name.startswith(f"{model.base_model_prefix}.")

    def _find(self, name: str, prefix: str, parameter: Tensor) -> str:
        for stored in (name, name.removeprefix(prefix), prefix + name):
            if stored in self._files and self._shape(stored) == tuple(parameter.shape):
                return stored
        if (outer := under_another_name(self._files, name)) is not None:
            raise UserError(
                f"the files hold {name} under {outer!r}: the model was saved inside a wrapper. "
                "Save the model itself with save_pretrained."
            )
        raise UserError(
            f"the files hold no tensor {name} of shape {tuple(parameter.shape)}: this model's "
            "weights are converted while loading, and cannot be streamed. Measure it without "
            "streaming."
        )

    def _read(self, name: str) -> Tensor:
        from safetensors import safe_open

        stored = self._stored[name]
        with safe_open(self._files[stored].file, "pt") as file:
            return file.get_tensor(stored)

    def _fill(self, model: nn.Module, name: str) -> None:
        """Fill one parameter or buffer outside the blocks.

        An embedding stays a view of the file, in the file's precision, so that only the rows that
        the prompts use are read. Those are converted before anything is computed with them.
        """
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        value = self._read(name)
        if self._device.type == "cpu" and value.dtype != self._dtype and _looks_up(module):
            keep_rows(module, value, self._dtype)
        elif isinstance(module, nn.Embedding) and value.dtype == self._dtype:
            _put(module, leaf, value.to(self._device))
        else:
            _put(module, leaf, self._converted(value))

    def _converted(self, value: Tensor) -> Tensor:
        """A copy in memory (a view of the file would keep its pages resident)."""
        dtype = self._dtype if value.is_floating_point() else value.dtype
        return value.to(self._device, dtype, copy=True)

    def hold(self, member: nn.Module | None, sources: Sequence[nn.Module] = ()) -> None:
        """Keep the weights of one block in memory, and of no other.

        Args:
            member: the block; None: keep no block's weights.
            sources: blocks of the same structure whose mean weights it gets instead of its own.
        """
        wanted = [id(source) for source in sources] or [id(member)]
        if member is self._held and wanted == self._from:
            return
        if self._held is not None:
            for module in self._held.modules():
                for leaf, value in module._parameters.items():
                    if value is not None:
                        module._parameters[leaf] = nn.Parameter(
                            torch.empty_like(value, device="meta"), requires_grad=False
                        )
        self._held, self._from = member, wanted
        if member is None:
            return
        self.reads += len(wanted)
        for below in member.state_dict(keep_vars=True):
            path, _, leaf = below.rpartition(".")
            tensor = self._mean([f"{self._names[source]}.{below}" for source in wanted])
            _put(member.get_submodule(path), leaf, tensor)

    def _mean(self, names: Sequence[str]) -> Tensor:
        several = [self._converted(self._read(name)) for name in names]
        floating = several[0].is_floating_point()
        return torch.stack(several).mean(0) if floating and len(several) > 1 else several[0]

    def fill_head(self, model: nn.Module) -> None:
        """Read the head, which the hidden states do not need.

        Raises:
            UserError: the files do not hold its weights.
        """
        for module, leaf, value in self._head(model):
            whole = value.to(self._device, self._dtype, copy=True)
            module._parameters[leaf] = nn.Parameter(whole, requires_grad=False)

    @contextmanager
    def head_in_slices(self, model: nn.Module) -> Iterator[None]:
        """A context in which the head works, with a part of its vocabulary in memory at a time.

        Raises:
            UserError: the files do not hold its weights.
        """
        with ExitStack() as after:
            for module, leaf, value in list(self._head(model)):
                after.callback(module._parameters.__setitem__, leaf, module._parameters[leaf])
                if isinstance(module, nn.Linear) and leaf == "weight":
                    forward = linear_in_slices(module, value, self._device, self._dtype)
                    after.enter_context(replaced_forward([module], forward))
                    kept = _shape_alone(value, self._dtype)
                else:
                    kept = value.to(self._device, self._dtype)
                module._parameters[leaf] = nn.Parameter(kept, requires_grad=False)
            yield

    def _head(self, model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
        """Modules outside the blocks that lack a parameter, with its name and its stored value."""
        prefix = getattr(model, "base_model_prefix", "") + "."
        embedding = getattr(model, "get_input_embeddings", lambda: None)()
        tied = getattr(text_config(model), "tie_word_embeddings", False)
        for name, parameter in list(model.named_parameters(remove_duplicate=False)):
            inside = any(name.startswith(f"{member}.") for member in self._names.values())
            if inside or not parameter.is_meta:
                continue
            owner, _, leaf = name.rpartition(".")
            module = model.get_submodule(owner)
            own = {name, name.removeprefix(prefix), prefix + name} & self._files.keys()
            fits = embedding is not None and embedding.weight.shape == parameter.shape
            if (
                tied and embedding is not None and fits and not own
            ):  # transformers keeps a head that is stored
                yield module, leaf, vars(embedding).get("rows", embedding.weight).detach()
                continue
            try:
                if name not in self._stored:
                    self._stored[name] = self._find(name, prefix, parameter)
            except UserError:
                # A head may have another name in the files: the one unused tensor that fits.
                left = set(self._files) - set(self._stored.values())
                fitting = [each for each in left if self._shape(each) == tuple(parameter.shape)]
                if len(fitting) != 1:
                    raise
                (self._stored[name],) = fitting
            yield module, leaf, self._read(name)

    def _shape(self, stored: str) -> tuple[int, ...]:
        return self._files[stored].shape

    @contextmanager
    def on_entry(self) -> Iterator[None]:
        """A context in which a block's weights are read whenever it is entered."""
        with ExitStack() as hooks:
            for member in self.members:
                hook = member.register_forward_pre_hook(lambda m, args: self.hold(m))
                hooks.callback(hook.remove)
            yield
        self.hold(None)


class _Rows(nn.Embedding):
    """An embedding whose rows are converted as they are looked up."""

    rows: Tensor

    def forward(self, input: Tensor) -> Tensor:
        return functional.embedding(input, self.rows).to(self.weight.dtype)


def keep_rows(module: nn.Module, rows: Tensor, dtype: torch.dtype) -> None:
    """Let an embedding look up rows in another precision than it computes in.

    What its own class does with them (Gemma's scales them) is computed in `dtype`.
    """
    kind = type(module)
    bases = (_Rows,) if kind is nn.Embedding else (kind, _Rows)
    module.__class__ = type(kind.__name__, bases, {"__module__": kind.__module__})
    vars(module)["rows"] = rows
    _put(module, "weight", _shape_alone(rows, dtype))


def _looks_up(module: nn.Module) -> bool:
    """Whether a module takes its rows by `nn.Embedding.forward`, and nothing else from them."""
    if not isinstance(module, nn.Embedding):
        return False
    own = unwrap(type(module).forward)
    return own is nn.Embedding.forward or "super" in own.__code__.co_names


def _shape_alone(value: Tensor, dtype: torch.dtype) -> Tensor:
    """NaN in the shape of a tensor, without memory: whatever reads it shows."""
    return torch.full((1,), torch.nan, dtype=dtype).expand(value.shape)


def _put(module: nn.Module, leaf: str, value: Tensor) -> None:
    """Set a module's parameter or buffer."""
    if leaf in module._buffers:
        module._buffers[leaf] = value
    else:
        module._parameters[leaf] = nn.Parameter(value, requires_grad=False)


@dataclass
class StreamedModel:
    """A model whose blocks are read when they are needed.

    Attributes:
        model: the modules; parameters of blocks that are not in memory are on the meta device.
        weights: reads them.
    """

    model: nn.Module
    weights: BlockWeights

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self.model.config


def stream_model(
    directory: Path | str,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    *,
    loaded_as: Any = None,
    trust_remote_code: bool = False,
) -> StreamedModel:
    """Set a model up for streaming.

    Args:
        directory: a Hugging Face model directory with safetensors files (a hub snapshot is one).
        dtype: of the weights in memory.
        device: where they are kept.
        loaded_as: class of transformers to build; None: AutoModelForCausalLM.
        trust_remote_code: run the Python code that comes with the directory, if any.

    Raises:
        UserError: the directory has no safetensors files, they cannot be read (every reason is
            listed), or they need converting; or the model is not a causal language model.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    files = stored_tensors(directory)
    if not files:
        raise UserError(
            f"{directory} has no weights in safetensors files: streaming reads blocks from those. "
            "Save the model with save_pretrained, or measure it without streaming."
        )
    # Without this, transformers asks on the terminal whether to run code from the directory.
    own = {"trust_remote_code": trust_remote_code}
    config = AutoConfig.from_pretrained(directory, **own)
    if getattr(config, "quantization_config", None):
        raise UserError(
            f"{directory} is stored quantized, and cannot be streamed; use the unquantized weights"
        )
    of_itself = "auto_map" in config.to_dict()  # its own code says what it is
    if not (loaded_as or of_itself or type(config) in MODEL_FOR_CAUSAL_LM_MAPPING):
        raise UserError(
            f"{directory} holds a model of kind {config.model_type}, and only causal language "
            "models can be streamed. Measure it without streaming."
        )
    with init_empty_weights(include_buffers=False):
        model = (loaded_as or AutoModelForCausalLM).from_config(
            config, dtype=dtype, attn_implementation="eager", **own
        )
    model.eval().requires_grad_(False)
    for buffer in model.buffers():
        buffer.data = buffer.data.to(device)
    return StreamedModel(model, BlockWeights(model, files, dtype, torch.device(device)))


def in_lockstep(
    weights: BlockWeights, members: Sequence[nn.Module], runs: Sequence[Callable[[], Result]]
) -> list[Result]:
    """Call functions that each run the model, all of them through one block before the next.

    Every function has its own thread, and only one thread runs at a time: it waits before every
    block until that block's weights are in memory. Results do not depend on timing.

    Args:
        weights: of the model.
        members: its blocks in order.
        runs: functions of no arguments; each may run the model several times.

    Returns:
        Their results, in order.
    """
    order = {id(member): index for index, member in enumerate(members)}
    threads = [_Paused(run) for run in runs]

    def wait(module: nn.Module, args: Any) -> None:
        current = _Paused.of_this_thread()
        if current is not None:
            current.pause_at(order[id(module)])

    with ExitStack() as hooks:
        for member in members:
            hooks.callback(member.register_forward_pre_hook(wait).remove)
        hooks.callback(weights.hold, None)
        for thread in threads:
            thread.proceed()
        while waiting := [t.waits_at for t in threads if t.waits_at is not None]:
            failed = next((t.error for t in threads if t.error is not None), None)
            if failed is not None:
                for thread in threads:
                    thread.abandon()
                raise failed
            block = min(waiting)
            weights.hold(members[block])
            for thread in threads:
                if thread.waits_at == block:
                    thread.proceed()
    for thread in threads:
        if thread.error is not None:
            raise thread.error
    return [thread.result for thread in threads]


class _Abandoned(BaseException):
    """Ends a waiting thread whose work is no longer wanted."""


class _Paused:
    """A function in a thread that runs only between `proceed` and its next pause."""

    _all: ClassVar[dict[int, _Paused]] = {}

    def __init__(self, run: Callable[[], Any]) -> None:
        self.waits_at: int | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self._unwanted = False
        self._may_run, self._has_stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._body, args=(run,), daemon=True)
        self._thread.start()

    @classmethod
    def of_this_thread(cls) -> _Paused | None:
        return cls._all.get(threading.get_ident())

    def _body(self, run: Callable[[], Any]) -> None:
        self._may_run.acquire()
        self._all[threading.get_ident()] = self
        try:
            self.result = run()
        except _Abandoned:
            pass
        except BaseException as error:
            self.error = error  # raised again by `in_lockstep`, in the caller's thread
        finally:
            del self._all[threading.get_ident()]
            self.waits_at = None
            self._has_stopped.release()

    def pause_at(self, block: int) -> None:
        self.waits_at = block
        self._has_stopped.release()
        self._may_run.acquire()
        if self._unwanted:
            raise _Abandoned

    def proceed(self) -> None:
        self._may_run.release()
        self._has_stopped.acquire()

    def abandon(self) -> None:
        if self.waits_at is not None:
            self._unwanted = True
            self.proceed()
