"""How much of a GPU a model takes, and which settings make it take less. Arithmetic only.

What is counted is weights, exactly, and one share for everything else, which was measured.
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


@dataclass(frozen=True, slots=True)
class Fit:
    """How the two large parts of a model are held. See docs/models.md."""

    transformer: str = "whole"  # one of TRANSFORMER
    text_encoder: str = "whole"  # one of TEXT_ENCODER

    @property
    def settings(self) -> str:
        return f"IRIS_TRANSFORMER={self.transformer} IRIS_TEXT_ENCODER={self.text_encoder}"


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


def fits_for(size: ModelSize, memory_bytes: int, *, has_fp8: bool) -> Iterator[Fit]:
    """The ways to hold the model in so much memory, the fastest first."""
    for transformer in TRANSFORMER:
        if transformer == "fp8" and not has_fp8:
            continue
        for text_encoder in TEXT_ENCODER:
            fit = Fit(transformer, text_encoder)
            if size.device_bytes(fit) <= memory_bytes:
                yield fit


def check_fits(
    name: str, size: ModelSize, fit: Fit, free_bytes: int, *, has_fp8: bool, bytes_each: int = 2
) -> None:
    """Compare what the model will take with what the GPU has free, before anything is loaded.

    Raises:
        ConfigError: it is too little; names what is needed, what there is and what would fit.
    """
    needed = size.device_bytes(fit, bytes_each=bytes_each)
    if needed <= free_bytes:
        return
    ways = [way.settings for way in fits_for(size, free_bytes, has_fp8=has_fp8)]
    advice = (
        f"What would fit: {'; or '.join(ways[:3])}."
        if ways
        else "Nothing that can be set makes it fit: use a larger GPU, or a smaller model."
    )
    raise ConfigError(
        f"{name} needs about {gib(needed)} of GPU memory with {fit.settings}, and "
        f"{gib(free_bytes)} are free. {advice}"
    )


def gib(number: int) -> str:
    """Bytes as a person reads them."""
    return f"{number / _GIB:.1f} GiB" if number >= _GIB else f"{number / (1 << 20):.0f} MiB"
