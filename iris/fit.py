"""How much memory a model takes, and which settings make it take less. Arithmetic only.

Of a GPU weights are counted, exactly, and one share for everything else, which was measured; of
the host weights alone, so that nothing is refused that would have worked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from iris.errors import ConfigError

TRANSFORMER = ("whole", "fp8", "int8", "offload")
TEXT_ENCODER = ("whole", "int8", "offload", "cpu")

_GIB = 1 << 30
# What is not weights: a picture of 960x960 in the making and being decoded, the CUDA context. On an
# H200 it was 2.4 GiB at most, however the weights were held; edits of five references take more.
WORKING_BYTES = 3 * _GIB
# Of a parameter in the files of a model, which are published in bfloat16.
_FILE_BYTES = 2
_FEWER = "Use fewer engines (IRIS_ENGINES), a larger GPU or a smaller model."
NEEDS_FP8 = (
    "IRIS_TRANSFORMER=fp8 needs a GPU with float8 units (compute capability 8.9 or newer: Ada, "
    "Hopper, Blackwell)"
)


@dataclass(frozen=True, slots=True)
class Fit:
    """How the two large parts of a model are held. See docs/models.md."""

    transformer: str = "whole"  # one of TRANSFORMER
    text_encoder: str = "whole"  # one of TEXT_ENCODER

    @property
    def settings(self) -> str:
        return f"IRIS_TRANSFORMER={self.transformer} IRIS_TEXT_ENCODER={self.text_encoder}"

    @property
    def needs_fp8(self) -> bool:
        return self.transformer == "fp8"


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Parameters of a model's parts."""

    blocks: int  # of the transformer, all together
    largest_block: int
    transformer_rest: int
    text_layers: int  # those that are read, all together
    largest_text_layer: int
    text_embedding: int
    autoencoder: int

    def device_bytes(self, fit: Fit, *, bytes_each: int = 2) -> int:
        """Memory of the device that the model takes while it makes pictures.

        bytes_each: of a parameter in the dtype that is served; 2 for bfloat16.
        """
        return self.weight_bytes(fit, bytes_each=bytes_each) + WORKING_BYTES

    def weight_bytes(self, fit: Fit, *, bytes_each: int = 2) -> int:
        """Memory of the device that the weights take."""
        blocks = {
            "whole": self.blocks * bytes_each,
            "fp8": self.blocks,
            "int8": self.blocks,
            "offload": 2 * self.largest_block * bytes_each,
        }[fit.transformer]
        text = {
            "whole": (self.text_layers + self.text_embedding) * bytes_each,
            "int8": self.text_layers,
            "offload": 2 * self.largest_text_layer * bytes_each,
            "cpu": 0,
        }[fit.text_encoder]
        # an eight-bit layer is multiplied out while it is run
        if fit.transformer == "int8":
            blocks += self.largest_block * bytes_each
        if fit.text_encoder == "int8":
            text += self.largest_text_layer * bytes_each
        return blocks + text + (self.transformer_rest + self.autoencoder) * bytes_each

    def host_bytes(self, fit: Fit, *, bytes_each: int = 2) -> int:
        """Host memory that weights take for good beside a GPU."""
        blocks = self.blocks if fit.transformer == "offload" else 0
        layers = self.text_layers if fit.text_encoder in ("offload", "cpu") else 0
        embedding = 0 if fit.text_encoder == "whole" else self.text_embedding
        return (blocks + layers + embedding) * bytes_each

    def processor_bytes(self, fit: Fit, *, engines: int = 1, bytes_each: int = 2) -> int:
        """Memory that the weights take at least where pictures are made on a CPU.

        engines: on this machine, all together.
        """
        each = self.weight_bytes(fit, bytes_each=bytes_each)
        each += self.host_bytes(fit, bytes_each=bytes_each)
        if bytes_each == _FILE_BYTES:
            return each  # they are pages of the files, which engines share
        # all is there in the dtype served before anything is rounded
        return max(self.weight_bytes(Fit(), bytes_each=bytes_each), engines * each)


def fits_for(
    size: ModelSize, memory_bytes: int, *, has_fp8: bool, bytes_each: int = 2
) -> Iterator[Fit]:
    """The ways to hold the model in so much memory of a GPU, the fastest first."""
    for transformer in TRANSFORMER:
        for text_encoder in TEXT_ENCODER:
            fit = Fit(transformer, text_encoder)
            if fit.needs_fp8 and not has_fp8:
                continue
            if size.device_bytes(fit, bytes_each=bytes_each) <= memory_bytes:
                yield fit


def fits_instead(
    size: ModelSize, fit: Fit, memory_bytes: int, *, has_fp8: bool, bytes_each: int = 2
) -> list[Fit]:
    """The same; where `fit` wants the float8 that the GPU lacks, first what is nearest to it."""
    ways = list(fits_for(size, memory_bytes, has_fp8=has_fp8, bytes_each=bytes_each))
    if fit.needs_fp8 and not has_fp8:
        ways.sort(key=lambda way: way != Fit("int8", fit.text_encoder))
    return ways


def engines_on(gpu: int, engines: int, gpus: int) -> int:
    """How many of all engines have the GPU of that number: they take the GPUs in turn."""
    return len(range(gpu, engines, gpus))


def check_fits(
    name: str,
    size: ModelSize,
    fit: Fit,
    free_bytes: int,
    share_bytes: int,
    *,
    has_fp8: bool,
    bytes_each: int = 2,
) -> None:
    """Compare what the model will take with what the GPU has, before anything is loaded.

    share_bytes: of all its memory, this engine's. The other engines on it may be there already or
    not yet, so what is free does not tell whether all of them will find room.

    Raises:
        ConfigError: it is too little, or the GPU lacks float8 units that were asked for; names
            what is needed, what there is and what would fit.
    """
    room = min(free_bytes, share_bytes)
    needed = size.device_bytes(fit, bytes_each=bytes_each)
    lacks_fp8 = fit.needs_fp8 and not has_fp8
    if needed <= room and not lacks_fp8:
        return
    ways = fits_instead(size, fit, room, has_fp8=has_fp8, bytes_each=bytes_each)
    advice = (
        f"What would fit: {'; or '.join(way.settings for way in ways[:3])}."
        if ways
        else "Nothing that can be set makes it fit: use a larger GPU, or a smaller model."
    )
    if lacks_fp8:
        raise ConfigError(f"{NEEDS_FP8}, and this GPU has none. {advice}")
    there = f"{gib(free_bytes)} are free"
    if share_bytes < free_bytes:
        there = f"{gib(share_bytes)} are there for each engine that shares this GPU"
        if needed <= free_bytes:
            advice = f"Use fewer engines (IRIS_ENGINES). {advice}" if ways else _FEWER
    raise ConfigError(
        f"{name} needs about {gib(needed)} of GPU memory with {fit.settings}, and {there}. {advice}"
    )


def check_host(
    name: str,
    size: ModelSize,
    fit: Fit,
    memory_bytes: int,
    *,
    engines: int = 1,
    bytes_each: int = 2,
) -> None:
    """Compare the weights with the memory there is for a CPU, before anything is loaded.

    memory_bytes: all of it, not what is free: the system gives back what others can do without.

    Raises:
        ConfigError: it is too little, or float8 was asked for; says what to do.
    """
    needed = size.processor_bytes(fit, engines=engines, bytes_each=bytes_each)
    if needed > memory_bytes:
        advice = host_advice(size, fit, memory_bytes, engines=engines, bytes_each=bytes_each)
        served = f"{engines} engines and {fit.settings}" if engines > 1 else fit.settings
        raise ConfigError(
            f"The weights of {name} take {gib(needed)} of memory with {served}, and "
            f"{gib(memory_bytes)} are there. What to do: {advice}."
        )
    if fit.needs_fp8:
        raise ConfigError(f"{NEEDS_FP8}, and this is a CPU. Set IRIS_TRANSFORMER=int8.")


def host_advice(
    size: ModelSize, fit: Fit, memory_bytes: int, *, engines: int = 1, bytes_each: int = 2
) -> str:
    """What to do where a CPU has too little memory for the weights."""
    ways = []
    if bytes_each > _FILE_BYTES and size.processor_bytes(fit) <= memory_bytes:
        ways.append("set IRIS_DTYPE=bfloat16")
    if engines > 1 and size.processor_bytes(fit, bytes_each=bytes_each) <= memory_bytes:
        ways.append("set IRIS_ENGINES=1")
    return ", or ".join([*ways, "use a smaller model, more memory or a GPU"])


def gib(number: int) -> str:
    """Bytes as a person reads them."""
    return f"{number / _GIB:.1f} GiB" if number >= _GIB else f"{number / (1 << 20):.0f} MiB"
