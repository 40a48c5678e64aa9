"""The autoencoder of the trained iris-mini: a linear encoder in closed form, a decoder to train.

The encoder is one linear map a block: 32x32 pixels of 3 colours to 32 numbers, the principal
components of rendered pictures. It is written into AutoencoderKLFlux2 as a cascade: each strided
convolution turns 2x2 neighbours into the directions that the components still need, and every
residual block passes its input through. `LinearCodec` is the same map as one matrix, taken from
the encoder as it is stored (bf16), so both agree within the precision of fp32.

    components = fit_components(pictures)
    codec = LinearCodec.of(components)
    cells = codec.encode(pictures)  # what the transformer is trained on
    vae = build_vae(components)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from diffusers import AutoencoderKLFlux2
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from iris.engine.latents import patchify, unpatchify
from training.decoder import LATENTS, STATES, WIDTHS, Decoder, write_decoder

RGB = 3
BLOCK = 32  # pixels a side of what one latent sees
CELL = 64  # pixels a side of a token: 2x2 latents
ENCODER_WIDTHS = (12, 24, 32, 48, 64, 96)  # full resolution first
CASCADE = (3, 12, 24, 32, 48, 32)  # directions kept of blocks of 1, 2, 4, ... 32 pixels
FREQUENCIES = 12  # of a block's 32: what is finer never reaches the first 32 components
GAIN = 32.0  # latents are the orthonormal components over this: brightness comes out about 1
WHITENING = 0.5  # 0 leaves the deviations of the components as they are, 1 makes them equal
LEVEL = 1024.0  # of the constant channels that hold GroupNorm still
CONSTANTS = 24  # a quarter of the last encoder width: their deviation is LEVEL / 2 exactly
LOG_VARIANCE = -12.0
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
        vae = _empty_vae()
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
        blocks = _blocks(pictures, BLOCK)
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


def build_vae(components: Components, decoder: Decoder | None = None) -> AutoencoderKLFlux2:
    """The whole autoencoder in fp32, the encoder rounded to bf16 as it is stored.

    Without `decoder`, decoding is the linear inverse.
    """
    vae = _empty_vae()
    write_encoder(vae, components)
    write_decoder(vae, decoder or start_decoder(components))
    return vae.eval()


def start_decoder(components: Components, seed: int = 0) -> Decoder:
    """A decoder, ready to be trained, that is the linear inverse of the encoder."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        decoder = Decoder()
    decoder.start(components.ups)
    return decoder


def fit_components(pictures: Sequence[Tensor]) -> Components:
    """Measure components on pictures (3, H, W) in uint8, of 256 pixels a side or more.

    Every picture counts the same, whatever its size. The basis is that of the pictures and
    their mirror images. The same pictures give the same components.
    """
    waves = _cosines(BLOCK)[:FREQUENCIES]
    size = RGB * FREQUENCIES**2
    total = torch.zeros(size, dtype=torch.float64)
    products = torch.zeros(size, size, dtype=torch.float64)
    for picture in pictures:
        blocks = _blocks(_signed(picture)[None], BLOCK).flatten(0, 2)
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


def write_encoder(vae: AutoencoderKLFlux2, components: Components) -> None:
    """Write the encoder and the statistics of `components`, rounded to bf16."""
    with torch.no_grad():
        _write_cascade(vae, components)
        variance = components.deviation ** (2 * WHITENING)
        power = (components.deviation**2 / variance).mean()  # so that a token's is 1 on average
        variance = variance * power - vae.config.batch_norm_eps
        vae.bn.running_mean.copy_(components.mean.repeat_interleave(4))
        vae.bn.running_var.copy_(variance.repeat_interleave(4))
        for module in (vae.encoder, vae.quant_conv, vae.bn):
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.is_floating_point():
                    tensor.copy_(tensor.bfloat16().float())


def _empty_vae() -> AutoencoderKLFlux2:
    levels = len(WIDTHS)
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=ENCODER_WIDTHS,
        decoder_block_out_channels=WIDTHS,
        layers_per_block=1,
        latent_channels=LATENTS,
        norm_num_groups=1,
        sample_size=768,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            # a residual block of zeros passes its input through
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        for conv in (vae.quant_conv, vae.post_quant_conv):
            conv.weight[:, :, 0, 0] = torch.eye(conv.out_channels)
    return vae.eval()


def _write_cascade(vae: AutoencoderKLFlux2, components: Components) -> None:
    encoder = vae.encoder
    for channel in range(RGB):
        encoder.conv_in.weight[channel, channel, 1, 1] = 1.0
    for level, step in enumerate(_cascade(components)):
        block = encoder.down_blocks[level]
        _pass_on(block.resnets[0].conv_shortcut)
        kept, seen = step.shape[:2]
        block.downsamplers[0].conv.weight[:kept, :seen, :2, :2] = step
    # pairs (+s, -s), since silu(s) - silu(-s) = s; constants make GroupNorm a known scale
    shortcut = encoder.down_blocks[-1].resnets[0].conv_shortcut
    for latent in range(LATENTS):
        shortcut.weight[2 * latent, latent] = 1.0
        shortcut.weight[2 * latent + 1, latent] = -1.0
        encoder.conv_out.weight[latent, 2 * latent, 1, 1] = 1.0
        encoder.conv_out.weight[latent, 2 * latent + 1, 1, 1] = -1.0
    shortcut.bias[-CONSTANTS::2] = LEVEL
    shortcut.bias[-CONSTANTS + 1 :: 2] = -LEVEL
    encoder.conv_norm_out.weight.fill_(LEVEL / 2)
    encoder.conv_out.bias[LATENTS:] = LOG_VARIANCE


def _pass_on(shortcut: nn.Conv2d | None) -> None:
    if shortcut is not None:
        for channel in range(min(shortcut.weight.shape[:2])):
            shortcut.weight[channel, channel] = 1.0


def _cascade(components: Components) -> list[Tensor]:
    """Kernels (kept, seen, 2, 2), finest first, that together are the components / GAIN.

    Each keeps the directions that the components' own parts of that size span best.
    """
    basis = components.basis.view(LATENTS, RGB, BLOCK, BLOCK).double()
    wanted = basis * components.deviation.view(-1, 1, 1, 1)
    steps = []
    inner = torch.eye(RGB, dtype=torch.float64)  # rows: directions kept of the finer block
    for level in range(1, len(CASCADE)):
        side = 2**level
        half = side // 2
        corners = inner.view(-1, RGB, half, half)
        seen = torch.zeros(len(inner), 2, 2, RGB, side, side, dtype=torch.float64)
        for y in range(2):
            for x in range(2):
                seen[:, y, x, :, y * half : (y + 1) * half, x * half : (x + 1) * half] = corners
        seen = seen.view(len(inner) * 4, -1)  # orthonormal rows, as `inner` has
        if side == BLOCK:
            step = basis.flatten(1) @ seen.T / GAIN
        else:
            parts = _blocks(wanted, side).flatten(0, 2) @ seen.T
            _, vectors = torch.linalg.eigh(parts.T @ parts)
            step = vectors.flip(1)[:, : CASCADE[level]].T
            peaks = step.gather(1, step.abs().argmax(1, keepdim=True))
            step = step * peaks.sign()
            inner = step @ seen
        steps.append(step.view(len(step), -1, 2, 2).float())
    return steps


def _fit_ups(basis: Tensor, pictures: Sequence[Tensor]) -> list[Tensor]:
    """The linear decoder by least squares, one doubling of the resolution after another.

    Every state holds the low frequencies of smaller blocks, as well as a 3x3 kernel after
    nearest upsampling can tell them from the state before.
    """
    crops = torch.stack([_signed(_centre(picture)) for picture in pictures[:CROPS]])
    state = (_blocks(crops, BLOCK) @ (basis.T / GAIN)).permute(0, 3, 1, 2).contiguous()
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
            blocks = _blocks(crops[part], side)
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


def _blocks(pictures: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) -> (B, H/side, W/side, 3 * side * side); what does not fill a block is cut."""
    batch, colours, height, width = pictures.shape
    rows, columns = height // side, width // side
    pictures = pictures[:, :, : rows * side, : columns * side]
    folded = pictures.reshape(batch, colours, rows, side, columns, side)
    return folded.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows, columns, -1)


def _cosines(side: int) -> Tensor:
    """The orthonormal cosine waves (frequency, place) of `side` places."""
    places = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    waves = torch.cos(torch.pi * torch.arange(side, dtype=torch.float64)[:, None] * places)
    waves[0] /= 2**0.5
    return (waves * (2.0 / side) ** 0.5).float()


def low_waves(side: int, count: int) -> Tensor:
    """The `count` lowest two-dimensional waves (count, side * side) of a block."""
    if side == 1:
        return torch.ones(1, 1)
    waves = _cosines(side)
    pairs = [(y, x) for y in range(side) for x in range(side)]
    pairs.sort(key=lambda pair: (pair[0] ** 2 + pair[1] ** 2, pair))
    return torch.stack([torch.outer(waves[y], waves[x]).flatten() for y, x in pairs[:count]])
