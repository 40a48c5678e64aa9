"""A FLUX.2-klein model folder, loaded: the components and the numbers the model carries.

A model says of itself how many pixels one token covers, which hidden states of the text encoder
condition the transformer and how long a prompt may be. Nothing in the engine knows which model
it runs.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from diffusers.utils import logging as diffusers_logging
from transformers.activations import SiLUActivation
from transformers.utils import logging as transformers_logging

from iris.engine.canvas import Canvas, Sides
from iris.engine.placement import place
from iris.engine.silu import SiluOfLines
from iris.errors import StoreError
from iris.fit import Fit
from iris.jobs import EditJob, Job

_log = logging.getLogger("iris")

# What the published klein checkpoints use; they carry no file that says so.
# Source: Flux2KleinPipeline.__call__, text_encoder_out_layers and max_sequence_length.
_KLEIN_TEXT_LAYERS = (9, 18, 27)
_KLEIN_TEXT_TOKENS = 512
WHOLE = Fit()
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc, malloc.h


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of one loaded model, all in eval mode, for one device."""

    transformer: Flux2Transformer2DModel
    vae: AutoencoderKLFlux2
    text_encoder: Any  # transformers' Qwen3Model, without the layers that nothing is taken from
    tokenizer: Any  # transformers' Qwen2Tokenizer
    scheduler_config: dict[str, Any]
    pixels_per_token: int  # side of the square of pixels one image token stands for
    text_layers: tuple[int, ...]  # hidden states that are concatenated
    text_tokens: int  # every prompt is padded or cut to this length
    sides: Sides | None  # at which it paints and edits, if it keeps to some
    composition_sides: Sides | None  # at which it paints what is made of several images
    reference_sides: Sides | None  # at which it reads what it only looks at
    device: torch.device
    dtype: torch.dtype
    # No matrix product spans two pictures: a picture is then the same whoever shares its steps on
    # CUDA too. On a CPU it is so anyway, see `floor.py`.
    is_strict: bool = False

    def canvas(self, job: Job) -> Canvas:
        """What is painted for a job."""
        is_composed = isinstance(job, EditJob) and not _is_edited(job)
        sides = self.composition_sides if is_composed else self.sides
        return Canvas.of(job.width_px, job.height_px, self.pixels_per_token, sides)

    def image_canvases(self, job: Job) -> list[Canvas]:
        """How each of a job's images is read: what is edited as it is painted again."""
        if not isinstance(job, EditJob):
            return []
        return [
            Canvas.of(
                image.width_px,
                image.height_px,
                self.pixels_per_token,
                self.sides if number == 0 and _is_edited(job) else self.reference_sides,
            )
            for number, image in enumerate(job.images)
        ]

    @property
    def text_device(self) -> torch.device:
        """Where the text encoder computes; its weights may lie elsewhere."""
        buffers: Iterator[tuple[str, torch.Tensor]] = self.text_encoder.rotary_emb.named_buffers()
        return next(buffers)[1].device


def _is_edited(job: EditJob) -> bool:
    """Whether the first image itself is edited, and not only looked at."""
    return job.strength is not None or job.mask is not None


def quieten() -> None:
    """No progress bars: in a log they are noise."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def use_threads(count: int) -> None:
    """Let torch use `count` CPU threads; its own default oversubscribes busy cores."""
    torch.set_num_threads(count)


def use_one_heap(device: torch.device) -> None:
    """For a process that computes on the CPU: see `keep_memory`. Before it has threads."""
    if device.type == "cpu":  # other heaps are cut into pieces of 64 MiB, which come and go
        _mallopt(_M_ARENA_MAX, 1)


def keep_memory(device: torch.device) -> None:
    """Let a process that computes on the CPU keep what it frees, and give out again what it kept.

    glibc takes large blocks from the kernel anew each time, page by page, and gives them back:
    a third of a decoding's time. From now on all blocks come from one heap that does not shrink.
    After a model is loaded: what that takes on the way is given back as before.
    """
    if device.type == "cpu":
        _mallopt(_M_MMAP_MAX, 0)
        _mallopt(_M_TRIM_THRESHOLD, -1)  # never


def _mallopt(parameter: int, value: int) -> None:
    """Where the C library is another one, nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(parameter, value)


def choose_device(device: str, number: int = 0) -> torch.device:
    """`auto` means CUDA where there is one; engines take the GPUs in turn."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        return torch.device("cuda", number % max(1, torch.cuda.device_count()))
    return torch.device(device)


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto` means bfloat16 on CUDA and on CPUs that multiply it themselves, else float32.

    Latents are float32 whatever the dtype, see `Row`.
    """
    if dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    if device.type == "cuda":
        return torch.bfloat16
    abilities = torch.cpu.get_capabilities()
    is_fast = abilities.get("avx512_bf16", False) or abilities.get("amx_bf16", False)
    return torch.bfloat16 if is_fast else torch.float32


def choose_compiled(setting: str, device: torch.device) -> bool:
    """`auto` means on CUDA, if there is the C compiler that torch's own compiler calls there.

    An image for production has none, and what cannot be compiled runs as it is.
    """
    if setting != "auto" or device.type != "cuda":
        return setting == "on"
    has_compiler = bool(os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"))
    if not has_compiler:
        _log.warning("nothing is compiled: there is no gcc or clang, and CC names none")
    return has_compiler


def load_components(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    fit: Fit = WHOLE,
    *,
    is_strict: bool = False,
) -> Components:
    """Load a complete Flux2KleinPipeline folder; safetensors only, nothing is downloaded.

    fit: how the transformer and the text encoder are held.

    Raises:
        StoreError: the folder lacks a part, or the model asks for something the engine lacks.
    """
    try:
        pipeline = Flux2KleinPipeline.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(
            f"The base model in {folder} is no complete Flux2KleinPipeline folder: {error}"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae.to(device)
    numbers = _model_numbers(folder)
    components = Components(
        transformer=pipeline.transformer.eval(),
        # convolutions are fastest with channels last, on a CPU and on CUDA
        vae=pipeline.vae.eval().to(memory_format=torch.channels_last),
        text_encoder=pipeline.text_encoder.model.eval(),
        tokenizer=pipeline.tokenizer,
        scheduler_config=dict(pipeline.scheduler.config),
        # One token is a 2x2 patch of VAE latents. Source: Flux2KleinPipeline.__init__.
        pixels_per_token=2 * pipeline.vae_scale_factor,
        text_layers=tuple(numbers.get("text_encoder_out_layers", _KLEIN_TEXT_LAYERS)),
        text_tokens=int(numbers.get("max_sequence_length", _KLEIN_TEXT_TOKENS)),
        sides=_sides(numbers, "sides", folder),
        composition_sides=_sides(numbers, "composition_sides", folder),
        reference_sides=_sides(numbers, "reference_sides", folder),
        device=device,
        dtype=dtype,
        is_strict=is_strict,
    )
    _check(components, folder)
    cut(components.text_encoder, max(components.text_layers))
    for block in components.text_encoder.layers:
        if isinstance(block.mlp.act_fn, SiLUActivation):
            block.mlp.act_fn = SiluOfLines()
    for module in (components.transformer, components.vae, components.text_encoder):
        module.requires_grad_(False)
    place(components.transformer, components.text_encoder, fit, device)
    if fit.text_encoder == "cpu" and choose_dtype("auto", torch.device("cpu")) == torch.float32:
        components.text_encoder.float()  # bfloat16 is several times slower where it is emulated
    name = str(dtype).removeprefix("torch.")
    _log.info("loaded on %s in %s, CPU threads: %d", device, name, torch.get_num_threads())
    return components


def cut(text_encoder: Any, layers: int) -> None:
    """Drop what lies behind the last hidden state that is taken.

    The last of all hidden states is normalised and the others are not, so where layers are dropped
    the norm goes too.
    """
    if layers < len(text_encoder.layers):
        text_encoder.layers = text_encoder.layers[:layers]
        text_encoder.norm = torch.nn.Identity()


def _model_numbers(folder: Path) -> dict[str, Any]:
    file = folder / "iris.json"
    if not file.exists():
        return {}
    numbers = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(numbers, dict):
        raise StoreError(f"{file} must hold a JSON object.")
    return numbers


def _sides(numbers: Mapping[str, Any], name: str, folder: Path) -> Sides | None:
    given = numbers.get(name)
    if given is None:
        return None
    try:
        return Sides(**{side: int(value) for side, value in given.items()})
    except (AttributeError, TypeError, ValueError) as error:
        raise StoreError(
            f"{folder / 'iris.json'}: {name} must give shorter_px and longer_most_px, in pixels; "
            f"it has {given!r} ({error})."
        ) from error


def _check(components: Components, folder: Path) -> None:
    config = components.scheduler_config
    for key in ("shift_terminal", "use_karras_sigmas", "use_exponential_sigmas"):
        if config.get(key):
            raise StoreError(f"{folder}: scheduler option {key} is not supported by the engine.")
    for key in ("use_beta_sigmas", "invert_sigmas", "stochastic_sampling", "use_flow_sigmas"):
        if config.get(key):
            raise StoreError(f"{folder}: scheduler option {key} is not supported by the engine.")
    layers = components.text_encoder.config.num_hidden_layers
    if not components.text_layers or max(components.text_layers) > layers:
        raise StoreError(
            f"{folder}: text_encoder_out_layers {components.text_layers} do not exist in a text "
            f"encoder of {layers} layers."
        )
    width = len(components.text_layers) * components.text_encoder.config.hidden_size
    if width != components.transformer.config.joint_attention_dim:
        raise StoreError(
            f"{folder}: the transformer takes text of width "
            f"{components.transformer.config.joint_attention_dim}, the text encoder gives {width}."
        )
    channels = 4 * components.vae.config.latent_channels
    if channels != components.transformer.config.in_channels:
        raise StoreError(
            f"{folder}: the transformer takes {components.transformer.config.in_channels} channels "
            f"a token, the autoencoder gives {channels}."
        )


def new_scheduler(components: Components) -> FlowMatchEulerDiscreteScheduler:
    """A fresh noise schedule: the library's keeps state, so it is never shared between pictures."""
    return FlowMatchEulerDiscreteScheduler.from_config(components.scheduler_config)
