"""What is measured on rendered pictures: the basis of the encoder, the start of the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from training.blocks import BLOCK, blocks_of, cosines, low_waves
from training.decoder import LATENTS, RGB, STATES, WIDTHS

FREQUENCIES = 12  # of a block's 32: what is finer never reaches the first 32 components
GAIN = 32.0  # latents are the orthonormal components over this: brightness comes out about 1
CROP = 256  # pictures are cut to this to fit the linear decoder
CROPS = 160  # pictures that the linear decoder is fitted on
CROPS_A_CHUNK = 16
SAMPLES_A_CHUNK = 1 << 15


@dataclass(frozen=True, slots=True)
class Components:
    """What is measured on pictures: the basis of the encoder, the start of the decoder."""

    basis: Tensor  # (32, 3072) orthonormal rows over (colour, y, x)
    mean: Tensor  # (32,) of the components / GAIN
    deviation: Tensor  # (32,)
    up5: Tensor  # convolutions of the linear decoder, from blocks of 32 pixels down to 2
    up4: Tensor
    up3: Tensor
    up2: Tensor
    up1: Tensor

    @property
    def ups(self) -> tuple[Tensor, ...]:
        """Kernels of the linear decoder after each upsampling, coarsest first."""
        return (self.up5, self.up4, self.up3, self.up2, self.up1)

    def save(self, path: Path) -> None:
        save_file({f.name: getattr(self, f.name).contiguous() for f in fields(self)}, path)

    @classmethod
    def load(cls, path: Path) -> Components:
        return cls(**load_file(path))


def fit_components(pictures: Sequence[Tensor]) -> Components:
    """Measure components on pictures (3, H, W) in uint8, of 256 pixels a side or more.

    Every picture counts the same, whatever its size. The basis is that of the pictures and
    their mirror images. The same pictures give the same components.
    """
    waves = cosines(BLOCK)[:FREQUENCIES]
    size = RGB * FREQUENCIES**2
    total = torch.zeros(size, dtype=torch.float64)
    products = torch.zeros(size, size, dtype=torch.float64)
    for picture in pictures:
        blocks = blocks_of(_signed(picture)[None], BLOCK).flatten(0, 2)
        blocks = blocks.view(-1, RGB, BLOCK, BLOCK)
        spectrum = (waves @ blocks @ waves.T).flatten(1)
        total += spectrum.mean(0).double()
        products += (spectrum.T @ spectrum / len(spectrum)).double()
    mean = total / len(pictures)
    covariance = products / len(pictures) - mean[:, None] * mean
    mirror = torch.ones(FREQUENCIES, dtype=torch.float64)
    mirror[1::2] = -1.0
    mirror = mirror.repeat(RGB * FREQUENCIES)
    covariance = (covariance + mirror[:, None] * covariance * mirror) / 2
    values, vectors = torch.linalg.eigh(covariance)
    vectors = vectors.flip(1)[:, :LATENTS].T
    peaks = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    vectors = vectors * peaks.sign()
    basis = waves.T.double() @ vectors.view(LATENTS, RGB, FREQUENCIES, FREQUENCIES) @ waves.double()
    basis = basis.flatten(1).float()
    ups = _fit_ups(basis, pictures)
    return Components(
        basis,
        (vectors @ mean / GAIN).float(),
        (values.flip(0)[:LATENTS].clamp_min(1e-8).sqrt() / GAIN).float(),
        *ups,
    )


def _fit_ups(basis: Tensor, pictures: Sequence[Tensor]) -> list[Tensor]:
    """The linear decoder by least squares, one doubling of the resolution after another.

    Every state holds the low frequencies of smaller blocks, as well as a 3x3 kernel after
    nearest upsampling can tell them from the state before.
    """
    crops = torch.stack([_signed(_centre(picture)) for picture in pictures[:CROPS]])
    state = (blocks_of(crops, BLOCK) @ (basis.T / GAIN)).permute(0, 3, 1, 2).contiguous()
    ups = []
    for level, channels in zip(range(len(WIDTHS) - 2, -1, -1), STATES, strict=True):
        side = 2**level
        waves = low_waves(side, channels // RGB)
        rim = BLOCK // side  # crops are cut out of pictures: their rims know too little
        size = 9 * state.shape[1]
        normal = torch.zeros(size, size, dtype=torch.float64)
        right = torch.zeros(size, channels, dtype=torch.float64)
        for start in range(0, len(crops), CROPS_A_CHUNK):
            part = slice(start, start + CROPS_A_CHUNK)
            blocks = blocks_of(crops[part], side)
            goal = (blocks.unflatten(3, (RGB, -1)) @ waves.T / side).flatten(3)
            goal = goal[:, rim:-rim, rim:-rim].flatten(0, 2)
            seen = F.unfold(_doubled(state[part]), 3, padding=1)
            seen = seen.unflatten(2, (CROP // side, CROP // side))[:, :, rim:-rim, rim:-rim]
            seen = seen.permute(0, 2, 3, 1).flatten(0, 2)
            step = max(1, len(seen) // SAMPLES_A_CHUNK)
            if step > 1:
                step |= 1  # odd: both parities of a place are among the samples
            seen, goal = seen[::step], goal[::step]
            normal += (seen.T @ seen).double()
            right += (seen.T @ goal).double()
        ridge = 1e-5 * normal.diagonal().mean() * torch.eye(size, dtype=torch.float64)
        kernel = torch.linalg.solve(normal + ridge, right).T.float()
        kernel = kernel.view(channels, state.shape[1], 3, 3)
        ups.append(kernel)
        if level:
            state = F.conv2d(_doubled(state), kernel, padding=1)
    return ups


def _doubled(state: Tensor) -> Tensor:
    return F.interpolate(state, scale_factor=2.0, mode="nearest")


def _signed(picture: Tensor) -> Tensor:
    return picture.float().div_(127.5).sub_(1.0)


def _centre(picture: Tensor) -> Tensor:
    top = (picture.shape[1] - CROP) // 2
    left = (picture.shape[2] - CROP) // 2
    return picture[:, top : top + CROP, left : left + CROP]
