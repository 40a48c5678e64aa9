"""The flow transformer, untrained: random features round a smoothing filter in closed form.

No weight has seen a picture. What is written by hand makes the output a
picture at all: the velocity is

    v = g(t) * (x - Sx) - GROWTH * Sx - F(prompt, place, Sx)

where S averages RGB over neighbouring tokens (attention heads whose query
and key are constants, so that only the rotary distance counts), g(t) is the
gain that removes noise of unit size from a picture that is flat within DETAIL,
and F is what the random blocks make of the prompt. Samples are soft colour
fields that differ by seed (Sx) and by prompt (F).
"""

from __future__ import annotations

import math

import torch
from diffusers import Flux2Transformer2DModel
from torch import Tensor, nn

from iris_mini.config import MiniConfig
from iris_mini.layout import (
    ONES,
    ROPE_THETA,
    SMOOTH,
    Layout,
    layout_of,
    rope_dim,
    rope_frequency,
)
from iris_mini.stream import measure

T_AXIS, H_AXIS, W_AXIS = 0, 1, 2
CONSTANT = 8.0  # size of the constant in the stream: large against the rest, so LayerNorm is steady
SHIFT = 4.0  # size of the constant that the double blocks' modulation adds after LayerNorm
PULSE = 8.0  # activation of a constant neuron
DETAIL = 0.015  # variance a picture is given within a token; the rest is taken for noise
GROWTH = 2.5
PROMPT = 1.0  # size of F in latents of unit variance
PLACES = 4


def build_transformer(
    config: MiniConfig, prompt_embeds: Tensor, generator: torch.Generator
) -> Flux2Transformer2DModel:
    """The whole transformer in fp32; needs at least 2 double blocks and 1 single block.

    prompt_embeds: (B, text_tokens, joint_attention_dim) of some usual prompts;
    their mean colour becomes grey.
    """
    transformer = Flux2Transformer2DModel(
        patch_size=1,
        in_channels=config.token_channels,
        num_layers=config.dit_double_blocks,
        num_single_layers=config.dit_single_blocks,
        attention_head_dim=config.head_dim,
        num_attention_heads=config.dit_heads,
        joint_attention_dim=config.text_width * len(config.text_out_layers),
        timestep_guidance_channels=config.dit_time_channels,
        mlp_ratio=config.dit_mlp_ratio,
        axes_dims_rope=config.dit_axes,
        rope_theta=ROPE_THETA,
        guidance_embeds=False,
    )
    transformer.eval()
    layout = layout_of(config)
    with torch.no_grad():
        _write_random(transformer, layout, generator)
        _write_time(transformer, config, layout, generator)
        _write_prompt_attention(transformer, prompt_embeds, config, layout)
        _write_constant(transformer.transformer_blocks[0], layout)
        _write_ends(transformer, layout, generator)
        # each of these divides by the stream's deviation at its place, so the order is the stream's
        middle = transformer.transformer_blocks[1]
        _write_smoothing(
            middle, measure(transformer, middle.norm1, prompt_embeds).std, config, layout
        )
        for block in transformer.single_transformer_blocks:
            _write_pulse(block, measure(transformer, block.norm, prompt_embeds).std, config, layout)
        _write_grey(transformer, prompt_embeds, config, layout)
        out = measure(transformer, transformer.norm_out.norm, prompt_embeds)
        transformer.proj_out.weight.mul_(out.std)
    return transformer


def _write_random(
    transformer: Flux2Transformer2DModel, layout: Layout, generator: torch.Generator
) -> None:
    def dense(linear: nn.Linear, size: float = 1.0) -> None:
        noise = torch.randn(linear.weight.shape, generator=generator)
        linear.weight.copy_(noise * size / linear.in_features**0.5)

    def read(linear: nn.Linear) -> None:
        linear.weight.copy_(layout.reader(linear.out_features, generator))

    def write(linear: nn.Linear, size: float) -> None:
        linear.weight.copy_(layout.writer(linear.in_features, size, generator))

    dense(transformer.context_embedder)
    for block in transformer.transformer_blocks:
        for linear in (block.attn.to_q, block.attn.to_k, block.attn.to_v, block.ff.linear_in):
            read(linear)
        write(block.attn.to_out[0], 2.0)
        write(block.ff.linear_out, 0.5)
        attn = block.attn
        for linear in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj):
            dense(linear)
        dense(attn.to_add_out)
        dense(block.ff_context.linear_in)
        dense(block.ff_context.linear_out)
    for block in transformer.single_transformer_blocks:
        read(block.attn.to_qkv_mlp_proj)
        write(block.attn.to_out, 0.7)


def _write_time(
    transformer: Flux2Transformer2DModel,
    config: MiniConfig,
    layout: Layout,
    generator: torch.Generator,
) -> None:
    """Fit the modulation, which is linear in the features of t, to the gains that are wanted."""
    embedder = transformer.time_guidance_embed
    first, second = embedder.timestep_embedder.linear_1, embedder.timestep_embedder.linear_2
    half = config.dit_time_channels // 2
    frequencies = 10000.0 ** (-torch.arange(half) / half)
    slow = (frequencies < 0.03).repeat(2)  # rad per 1/1000 of t
    noise = torch.randn(first.weight.shape, generator=generator)
    first.weight.copy_(noise * slow / float(slow.sum()) ** 0.5)
    noise = torch.randn(second.weight.shape, generator=generator)
    second.weight.copy_(noise * 2 / second.in_features**0.5)

    t = torch.linspace(0.0, 1.0, 501)
    features = nn.functional.silu(embedder(t * 1000, None)).double()
    targets = torch.stack([torch.ones_like(t), noise_gain(t)], dim=1).double()
    normal = features.T @ features + 1e-3 * torch.eye(features.shape[1], dtype=torch.float64)
    constant, gain = torch.linalg.solve(normal, features.T @ targets).float().unbind(dim=1)

    width = layout.width
    shift = torch.zeros(width)
    shift[layout.ones] = SHIFT * layout.signs()
    still, one = torch.zeros(width), torch.ones(width)
    sublayer = torch.cat([shift, still, one])  # shift, scale, gate
    for modulation in (
        transformer.double_stream_modulation_img,
        transformer.double_stream_modulation_txt,
    ):
        modulation.linear.weight.copy_(torch.cat([sublayer, sublayer])[:, None] * constant)
    transformer.single_stream_modulation.linear.weight.copy_(
        torch.cat([still, still, one])[:, None] * constant
    )
    scale = torch.zeros((width, len(constant)))
    scale[layout.noisy] = gain - constant
    scale[layout.ones] = gain - constant
    scale[layout.smooth] = gain + (GROWTH - 1.0) * constant
    transformer.norm_out.linear.weight.zero_()
    transformer.norm_out.linear.weight[:width] = scale  # the other half is its shift


def noise_gain(t: Tensor) -> Tensor:
    """g(t) = (1 - w) / t, with w the Wiener estimate of detail DETAIL under noise t."""
    picture, noise = DETAIL * (1 - t) ** 2, t**2
    kept = DETAIL * (1 - t) / (picture + noise)
    return torch.where(t > 1e-3, (1 - kept) / t.clamp(min=1e-3), -1.0)


def _head(linear: nn.Linear, head: int, head_dim: int) -> Tensor:
    return linear.weight[head * head_dim : (head + 1) * head_dim]


def _write_prompt_attention(
    transformer: Flux2Transformer2DModel,
    prompt_embeds: Tensor,
    config: MiniConfig,
    layout: Layout,
) -> None:
    """Block 0: image tokens look at the words alone, each place at its own mix of them."""
    block = transformer.transformer_blocks[0]
    text = block.norm1_context(transformer.context_embedder(prompt_embeds))
    words, padding = text[:, 4:7].mean(dim=(0, 1)), text[:, -1].mean(dim=0)
    # reads 0 at the mean word and 1 at the mean padding
    away = padding - words
    is_padding = away / away.dot(away)

    attn = block.attn
    near = rope_dim(config.dit_axes, T_AXIS, 0.0)
    for head in range(config.dit_heads):
        query = _head(attn.to_q, head, config.head_dim)
        query[:, : layout.ones.start] = 0.0  # constant: a token's own noise has no say
        query[near] = layout.read_ones(8.0 / SHIFT)
        key = _head(attn.to_k, head, config.head_dim)
        key.zero_()
        key[near] = layout.read_ones(-1.0)
        text_key = _head(attn.add_k_proj, head, config.head_dim)
        text_key[near] = -9.0 * is_padding
        # the text's own channels there are no constant, but the shift is
        text_key[near] += layout.read_ones((6.0 + 9.0 * float(is_padding.dot(words))) / SHIFT)


def _write_constant(block: nn.Module, layout: Layout) -> None:
    """Block 0: one neuron turns the modulation's shift into the stream's constant."""
    hidden = block.ff.linear_in.out_features // 2
    block.ff.linear_in.weight[0] = layout.read_ones(PULSE / SHIFT)
    block.ff.linear_in.weight[hidden] = layout.read_ones(1.0 / SHIFT)
    block.ff.linear_out.weight[:, 0] = 0.0
    block.ff.linear_out.weight[layout.ones, 0] = CONSTANT / PULSE * layout.signs()


def _write_smoothing(block: nn.Module, std: float, config: MiniConfig, layout: Layout) -> None:
    """Block 1: the mean of RGB over the neighbourhood, some 1.3 tokens wide.

    Head 2y + x looks from a quarter of a token off the centre, from its own place in the 2x2.
    """
    attn = block.attn
    axes = config.dit_axes
    slow, slower = 0.15, 0.022  # rad a token
    # how much a distance costs: weights of query and key at these rotary channels
    reach = {
        rope_dim(axes, H_AXIS, slow): 4.3,
        rope_dim(axes, W_AXIS, slow): 4.3,
        rope_dim(axes, T_AXIS, slow): 2.2,
        rope_dim(axes, T_AXIS, slower): 3.4,
    }
    for norm in (attn.norm_q, attn.norm_k, attn.norm_added_k):
        for dim, size in reach.items():
            norm.weight[dim : dim + 2] = size
    for head in range(PLACES):
        queries, keys, text_keys, values = (
            _head(linear, head, config.head_dim)
            for linear in (attn.to_q, attn.to_k, attn.add_k_proj, attn.to_v)
        )
        for rows, sign in ((queries, 1.0), (keys, 1.0), (text_keys, -1.0)):  # away from the text
            rows.zero_()
            for dim in reach:
                rows[dim] = layout.read_ones(sign)
        for axis, place in ((H_AXIS, head // 2), (W_AXIS, head % 2)):
            dim = rope_dim(axes, axis, slow)
            turn = rope_frequency(axes, axis, slow) * (place - 0.5) / 2
            queries[dim] = layout.read_ones(math.cos(turn))
            queries[dim + 1] = layout.read_ones(math.sin(turn))
        for colour in range(3):
            values[colour] = 0.0
            values[colour, 4 * colour : 4 * colour + 4] = 0.25
            values[colour, layout.ones] = -1.0 / ONES  # the mean that LayerNorm took away
            column = head * config.head_dim + colour
            attn.to_out[0].weight[:, column] = 0.0
            attn.to_out[0].weight[layout.smooth.start + 4 * colour + head, column] = std


def pulse_column(config: MiniConfig) -> int:
    """Input column of a single block's to_out that is PULSE at every image token."""
    return config.width


def _write_pulse(block: nn.Module, std: float, config: MiniConfig, layout: Layout) -> None:
    """A neuron that is always on: the place where a style can add a constant."""
    hidden = block.attn.mlp_hidden_dim
    size = CONSTANT / std
    block.attn.to_qkv_mlp_proj.weight[3 * layout.width] = layout.read_ones(PULSE / size)
    block.attn.to_qkv_mlp_proj.weight[3 * layout.width + hidden] = layout.read_ones(1.0 / size)
    block.attn.to_out.weight[:, pulse_column(config)] = 0.0


def _write_grey(
    transformer: Flux2Transformer2DModel,
    prompt_embeds: Tensor,
    config: MiniConfig,
    layout: Layout,
) -> None:
    """Take the colour that all prompts have in common out of F, by the last block's pulse."""
    mean = measure(transformer, transformer.norm_out.norm, prompt_embeds).mean[layout.free]
    out = transformer.single_transformer_blocks[-1].attn.to_out
    out.weight[layout.free, pulse_column(config)] = -mean / PULSE


def _write_ends(
    transformer: Flux2Transformer2DModel, layout: Layout, generator: torch.Generator
) -> None:
    transformer.x_embedder.weight.zero_()
    transformer.x_embedder.weight[layout.noisy] = torch.eye(layout.tokens)

    free = layout.free.stop - layout.free.start
    colours = torch.randn((3, free), generator=generator)
    colours = (colours - colours.mean(dim=1, keepdim=True)) * PROMPT / free**0.5
    weight = transformer.proj_out.weight
    weight.zero_()
    weight[:, layout.noisy] = torch.eye(layout.tokens)
    weight[:, layout.ones] = -1.0 / ONES
    weight[:SMOOTH, layout.ones] = 0.0  # the means that x and Sx lost cancel
    weight[:SMOOTH, layout.smooth] = -torch.eye(SMOOTH)
    weight[:SMOOTH, layout.free] = GROWTH / free - colours.repeat_interleave(4, dim=0)
