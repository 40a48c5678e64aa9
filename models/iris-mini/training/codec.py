"""The encoder as one matrix, taken from the encoder as it is stored (bf16).

So both agree within the precision of fp32.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2
from safetensors.torch import load_file, save_file
from torch import Tensor

from iris.engine.latents import patchify, unpatchify
from training.autoencoder import empty_vae
from training.blocks import BLOCK, blocks_of
from training.components import Components
from training.decoder import LATENTS, RGB
from training.encoder import write_encoder


class LinearCodec:
    """The encoder as one matrix: pictures to the cells that the transformer is trained on."""

    def __init__(self, weight: Tensor, bias: Tensor, mean: Tensor, std: Tensor) -> None:
        self.weight = weight  # (32, 3072): pixels of a block to latents
        self.bias = bias  # (32,)
        self.mean = mean  # (32,): the statistics of vae.bn
        self.std = std
        self._matrix = (weight / std[:, None]).T.contiguous()
        self._shift = (bias - mean) / std

    @classmethod
    def of(cls, components: Components) -> LinearCodec:
        """Measure the stored encoder of `components`."""
        vae = empty_vae()
        write_encoder(vae, components)
        return cls.of_vae(vae)

    @classmethod
    def of_vae(cls, vae: AutoencoderKLFlux2) -> LinearCodec:
        """Measure a vae's encoder, one pixel at a time."""
        with torch.inference_mode():
            dark = vae.encode(torch.zeros(1, RGB, BLOCK, BLOCK)).latent_dist.mode().flatten()
            rows = []
            for unit in torch.eye(RGB * BLOCK * BLOCK).split(256):
                pictures = unit.view(-1, RGB, BLOCK, BLOCK)
                rows.append(vae.encode(pictures).latent_dist.mode().flatten(1) - dark)
        std = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()
        return cls(torch.cat(rows).T.clone(), dark.clone(), vae.bn.running_mean[::4], std[::4])

    def encode(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W), uint8 or floats -1..1, H and W multiples of 64 -> (B, 128, H/64, W/64).

        As patchify and normalise of iris.engine.latents make them of vae.encode.
        """
        if pictures.dtype == torch.uint8:
            pictures = pictures.float().div_(127.5).sub_(1.0)
        blocks = blocks_of(pictures, BLOCK)
        latents = torch.addmm(self._shift, blocks.flatten(0, 2), self._matrix)
        latents = latents.view(*blocks.shape[:3], LATENTS).permute(0, 3, 1, 2)
        return patchify(latents.contiguous())

    def latents(self, cells: Tensor) -> Tensor:
        """(B, 128, h, w) -> (B, 32, 2h, 2w): what vae.decode takes."""
        return unpatchify(cells) * self.std.view(1, -1, 1, 1) + self.mean.view(1, -1, 1, 1)

    def save(self, path: Path) -> None:
        tensors = {"weight": self.weight, "bias": self.bias, "mean": self.mean, "std": self.std}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> LinearCodec:
        return cls(**load_file(path))
