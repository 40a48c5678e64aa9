"""The FLUX.2 transformer over a packed sequence: rows of unlike size, time and style at once.

The weights and their modules are those of diffusers' Flux2Transformer2DModel; what is ours is the
way through them. Everything that mixes tokens is attention, and attention stays within a row;
everything that depends on the noise level is computed row by row.
Source: diffusers, models/transformers/transformer_flux2.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from diffusers import Flux2Transformer2DModel
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from iris.engine.attention import choose
from iris.engine.floor import least_rows
from iris.engine.lora import GatedLinear
from iris.engine.packing import Layout, reorder, spread

Rotation = tuple[Tensor, Tensor]  # cosines and sines, (tokens, head width) each


class PackedTransformer:
    """Predicts velocities for any number of rows in one pass."""

    def __init__(self, model: Flux2Transformer2DModel) -> None:
        self._model: Any = model  # its submodules are not typed
        weight = model.x_embedder.weight
        self._attend = choose(weight.device, weight.dtype)
        for module in model.modules():  # measured now, and not while somebody waits
            if isinstance(module, nn.Linear | GatedLinear):
                floor_of(module)

    def rotation(self, positions: Tensor) -> Rotation:
        """Rotary angles of tokens at positions (tokens, 4)."""
        cosines, sines = self._model.pos_embed(positions)
        return cosines, sines

    def __call__(
        self,
        prompts: Sequence[Tensor],
        pictures: Sequence[Tensor],
        rotations: Sequence[Rotation],
        timesteps: Tensor,
        strengths: Tensor | None,
    ) -> list[Tensor]:
        """Velocities of every row's picture tokens, references included: (tokens, C) each.

        prompts, pictures: (tokens, width) of each row; rotations: of a row's prompt and picture
        together; timesteps: (rows,) 0..1; strengths: (rows, styles), None where no row has one.
        """
        model = self._model
        layout = Layout.of([len(p) for p in prompts], [len(p) for p in pictures], prompts[0].device)
        times = _Times(model, timesteps, strengths, pictures[0].dtype)
        of_text = _Rows(layout.text, layout.row_of_text, strengths)
        of_picture = _Rows(layout.picture, layout.row_of_picture, strengths)
        of_all = _Rows(layout.segments.lengths, layout.row_of_token, strengths)
        rotation = (torch.cat([c for c, _ in rotations]), torch.cat([s for _, s in rotations]))

        text = of_text(model.context_embedder, torch.cat(list(prompts)))
        picture = of_picture(model.x_embedder, torch.cat(list(pictures)))
        text_times = spread(times.double_text, layout.row_of_text).chunk(6, dim=-1)
        picture_times = spread(times.double_picture, layout.row_of_picture).chunk(6, dim=-1)
        for block in model.transformer_blocks:
            text, picture = self._double(
                block,
                text,
                picture,
                text_times,
                picture_times,
                rotation,
                layout,
                of_text,
                of_picture,
            )
        tokens = reorder(torch.cat([text, picture]), layout.to_rows)
        token_times = spread(times.single, layout.row_of_token).chunk(3, dim=-1)
        for block in model.single_transformer_blocks:
            tokens = self._single(block, tokens, token_times, rotation, layout, of_all)
        picture = reorder(tokens, layout.to_streams)[sum(layout.text) :]
        scale, shift = spread(times.out, layout.row_of_picture).chunk(2, dim=-1)
        picture = model.norm_out.norm(picture) * (1 + scale) + shift
        return list(torch.split(of_picture(model.proj_out, picture), list(layout.picture)))

    def _double(
        self,
        block: Any,
        text: Tensor,
        picture: Tensor,
        text_times: Sequence[Tensor],
        picture_times: Sequence[Tensor],
        rotation: Rotation,
        layout: Layout,
        of_text: _Rows,
        of_picture: _Rows,
    ) -> tuple[Tensor, Tensor]:
        attn = block.attn
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = picture_times
        c_shift, c_scale, c_gate, c_shift_mlp, c_scale_mlp, c_gate_mlp = text_times
        x = (1 + scale) * block.norm1(picture) + shift
        c = (1 + c_scale) * block.norm1_context(text) + c_shift

        def joined(of_prompt: Any, of_image: Any, norms: tuple[Any, Any] | None = None) -> Tensor:
            parts = [_heads(of_text(of_prompt, c), attn), _heads(of_picture(of_image, x), attn)]
            if norms is not None:
                parts = [norm(part) for norm, part in zip(norms, parts, strict=True)]
            return reorder(torch.cat(parts), layout.to_rows)

        query = joined(attn.add_q_proj, attn.to_q, (attn.norm_added_q, attn.norm_q))
        key = joined(attn.add_k_proj, attn.to_k, (attn.norm_added_k, attn.norm_k))
        value = joined(attn.add_v_proj, attn.to_v)
        seen = reorder(self._attention(query, key, value, rotation, layout), layout.to_streams)
        count = sum(layout.text)
        picture = picture + gate * of_picture(attn.to_out[0], seen[count:])
        x = block.norm2(picture) * (1 + scale_mlp) + shift_mlp
        picture = picture + gate_mlp * _feed(block.ff, x, of_picture)
        text = text + c_gate * of_text(attn.to_add_out, seen[:count])
        c = block.norm2_context(text) * (1 + c_scale_mlp) + c_shift_mlp
        text = text + c_gate_mlp * _feed(block.ff_context, c, of_text)
        return text, picture

    def _single(
        self,
        block: Any,
        tokens: Tensor,
        times: Sequence[Tensor],
        rotation: Rotation,
        layout: Layout,
        of_all: _Rows,
    ) -> Tensor:
        attn = block.attn
        shift, scale, gate = times
        x = of_all(attn.to_qkv_mlp_proj, (1 + scale) * block.norm(tokens) + shift)
        width = attn.inner_dim
        query, key, value = x[:, : 3 * width].chunk(3, dim=1)
        seen = self._attention(
            attn.norm_q(_heads(query, attn)),
            attn.norm_k(_heads(key, attn)),
            _heads(value, attn),
            rotation,
            layout,
        )
        return tokens + gate * of_all(
            attn.to_out, torch.cat([seen, attn.mlp_act_fn(x[:, 3 * width :])], dim=1)
        )

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, rotation: Rotation, layout: Layout
    ) -> Tensor:
        """(tokens, heads, head width) by row -> (tokens, width) by row."""
        query, key = (
            apply_rotary_emb(part[None], rotation, sequence_dim=1)[0] for part in (query, key)
        )
        return self._attend(query, key, value, layout.segments).flatten(1)


class _Rows:
    """Applies linear layers to the packed tokens of some rows, each with its own style."""

    def __init__(
        self, lengths: Sequence[int], row_of: Tensor | None, strengths: Tensor | None
    ) -> None:
        self._lengths = lengths
        self._shortest = min(lengths)
        self._strengths = None if strengths is None else spread(strengths, row_of)

    def __call__(self, layer: nn.Module, x: Tensor) -> Tensor:
        floor = floor_of(layer)
        if self._shortest >= floor:
            return _apply(layer, x, self._strengths)
        runs = self._runs(floor)
        strengths: Sequence[Tensor | None] = [self._strengths] * len(runs)
        if self._strengths is not None and len(self._strengths) > 1:
            strengths = torch.split(self._strengths, runs)
        return torch.cat(
            [_apply(layer, *part) for part in zip(torch.split(x, runs), strengths, strict=True)]
        )

    def _runs(self, floor: int) -> list[int]:
        """Tokens to be taken together: a row below the floor alone, neighbours above it as one."""
        runs: list[int] = []
        is_open = False
        for length in self._lengths:
            if is_open and length >= floor:
                runs[-1] += length
            else:
                runs.append(length)
            is_open = length >= floor
        return runs


def _apply(layer: nn.Module, x: Tensor, strengths: Tensor | None) -> Tensor:
    if isinstance(layer, GatedLinear):
        return cast(Tensor, layer(x, strengths))
    return cast(Tensor, layer(x))


def floor_of(layer: nn.Module) -> int:
    """The tokens from which on this layer gives each token the same whatever their number."""
    if isinstance(layer, GatedLinear):
        return least_rows((layer.base.weight, layer.down, layer.up))
    return least_rows((cast(Tensor, layer.weight),))


class _Times:
    """What the noise levels do to each row: (rows, N) shifts, scales and gates.

    Row by row: products that are one token high are below every floor.
    """

    def __init__(
        self, model: Any, timesteps: Tensor, strengths: Tensor | None, dtype: torch.dtype
    ) -> None:
        rows = []
        for i in range(len(timesteps)):
            gated = _Rows([1], None, None if strengths is None else strengths[i : i + 1])
            embed = model.time_guidance_embed
            wave = embed.time_proj(timesteps[i : i + 1].to(dtype) * 1000).to(dtype)
            hidden = gated(embed.timestep_embedder.linear_1, wave)
            time = gated(embed.timestep_embedder.linear_2, embed.timestep_embedder.act(hidden))
            rows.append(
                [
                    gated(layer, nn.functional.silu(time))
                    for layer in (
                        model.double_stream_modulation_txt.linear,
                        model.double_stream_modulation_img.linear,
                        model.single_stream_modulation.linear,
                        model.norm_out.linear,
                    )
                ]
            )
        stacked = [torch.cat(parts) for parts in zip(*rows, strict=True)]
        self.double_text, self.double_picture, self.single, self.out = stacked


def _heads(x: Tensor, attn: Any) -> Tensor:
    return x.view(len(x), -1, attn.head_dim)


def _feed(feed: Any, x: Tensor, gated: _Rows) -> Tensor:
    return gated(feed.linear_out, feed.act_fn(gated(feed.linear_in, x)))
