"""The numbers of an iris-mini: sizes of its three networks and how pictures are sampled."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MiniConfig:
    """Sizes of one iris-mini; the defaults are the model in this repository.

    The number of VAE widths is the number of levels: 4 levels give 16 pixels a token as
    FLUX.2-klein has, 5 levels give 32.

    Raises ValueError for sizes that the networks cannot have.
    """

    name: str = "iris-mini"
    vae_widths: tuple[int, ...] = (8, 8, 8, 16, 24)  # full resolution first
    latent_channels: int = 8
    dit_heads: int = 4
    dit_axes: tuple[int, int, int, int] = (8, 8, 8, 8)  # rotary dims of T, H, W, L; sum = head dim
    dit_double_blocks: int = 2
    dit_single_blocks: int = 3
    dit_mlp_ratio: float = 2.0
    dit_time_channels: int = 64
    text_vocab: int = 768
    text_width: int = 64
    text_mlp: int = 128
    text_heads: int = 4
    text_kv_heads: int = 2
    text_layers: int = 4
    text_out_layers: tuple[int, ...] = (1, 2, 3)
    text_tokens: int = 128
    shift: float = 3.0  # used by a caller that gives the scheduler no mu
    base_shift: float = 0.5
    max_shift: float = 1.15

    def __post_init__(self) -> None:
        for width in self.vae_widths:
            if width < 8 or width % 8:
                raise ValueError(f"vae_widths: {width} is no multiple of 8 (or is 0)")
        if self.latent_channels < 5:
            raise ValueError(f"latent_channels: {self.latent_channels} is under 5")
        if len(self.vae_widths) < 2 or min(self.vae_widths[-2:]) < 16:
            raise ValueError("vae_widths: the last two must be 16 or more")
        if self.dit_heads < 4 or self.dit_double_blocks < 2 or self.dit_single_blocks < 1:
            raise ValueError("the transformer needs 4 heads, 2 double blocks and 1 single block")
        if self.width < self.token_channels + 40:
            raise ValueError(f"dit_heads: width {self.width} leaves no room beside the latents")
        if any(axis % 2 for axis in self.dit_axes):
            raise ValueError(f"dit_axes: {self.dit_axes} has an odd axis")
        if max(self.text_out_layers) > self.text_layers:
            raise ValueError(f"text_out_layers: {self.text_out_layers} is past the last layer")

    @property
    def levels(self) -> int:
        return len(self.vae_widths)

    @property
    def pixels_per_token(self) -> int:
        return 2**self.levels

    @property
    def token_channels(self) -> int:
        """Channels of one transformer token: a 2x2 patch of latents."""
        return 4 * self.latent_channels

    @property
    def head_dim(self) -> int:
        return sum(self.dit_axes)

    @property
    def width(self) -> int:
        return self.dit_heads * self.head_dim
