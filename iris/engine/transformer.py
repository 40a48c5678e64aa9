"""The FLUX.2 transformer over a packed sequence: rows of unlike size, time and style at once.

The weights and their modules are those of diffusers' Flux2Transformer2DModel; what is ours is the
way through them. Everything that mixes tokens is attention, and attention stays within a row;
everything that depends on the noise level is computed row by row.
Source: diffusers, models/transformers/transformer_flux2.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, cast

import torch
from diffusers import Flux2Transformer2DModel
from torch import Tensor, nn

from iris.engine.attention import choose
from iris.engine.floor import least_rows
from iris.engine.lora import Worn
from iris.engine.packing import Layout, reorder
from iris.engine.pointwise import Pointwise, Rotation
from iris.engine.quantised import EightBitLinear

_WARM_SIZES = ((150,), (37, 83, 259))  # picture tokens of the rows that a compiler is shown


class PackedTransformer:
    """Predicts velocities for any number of rows in one pass."""

    def __init__(
        self, model: Flux2Transformer2DModel, pointwise: Pointwise, *, is_strict: bool = False
    ) -> None:
        """is_strict: no matrix product spans two rows, see `Components`."""
        self._model: Any = model  # its submodules are not typed
        self._is_strict = is_strict
        self._pointwise = pointwise
        weight = model.x_embedder.weight
        self._attend = choose(weight.device, weight.dtype)
        self._device = weight.device
        for module in model.modules():  # measured now, and not while somebody waits
            if isinstance(module, nn.Linear | EightBitLinear):
                least_rows((module,), self._device)

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
        worn: Sequence[Worn | None],
    ) -> list[Tensor]:
        """Velocities of every row's picture tokens, references included: (tokens, C) each.

        prompts, pictures: (tokens, width) of each row; rotations: of a row's prompt and picture
        together; timesteps: (rows,) 0..1; worn: each row's style.
        """
        with self._pointwise.stance():
            return self._pass(prompts, pictures, rotations, timesteps, worn)

    def warm(self, text_tokens: int) -> None:
        """Compile what is to be compiled, for one row and for several of any size; then no more."""
        if not self._pointwise.is_compiled:
            return
        model = self._model
        weight = model.x_embedder.weight
        for sizes in _WARM_SIZES:  # no two lengths equal: what is equal once is taken to stay so
            prompts = [weight.new_zeros(text_tokens, model.config.joint_attention_dim)] * len(sizes)
            pictures = [weight.new_zeros(size, model.config.in_channels) for size in sizes]
            rotations = [
                self.rotation(torch.zeros(text_tokens + size, 4, device=weight.device))
                for size in sizes
            ]
            times = torch.full((len(sizes),), 0.5, device=weight.device, dtype=weight.dtype)
            self._pass(prompts, pictures, rotations, times, [None] * len(sizes))
        self._pointwise.settle()

    def _pass(
        self,
        prompts: Sequence[Tensor],
        pictures: Sequence[Tensor],
        rotations: Sequence[Rotation],
        timesteps: Tensor,
        worn: Sequence[Worn | None],
    ) -> list[Tensor]:
        model = self._model
        lengths = tuple(tuple(map(len, parts)) for parts in (prompts, pictures))
        layout = Layout.of(*lengths, prompts[0].device, self._is_strict)
        times = _Times(model, timesteps, worn, pictures[0].dtype)
        if self._is_strict and len(timesteps) == 1:
            # A graph that is compiled for one row rounds otherwise than that for several.
            times.repeat()
        of_text, of_picture, of_all = (
            _Rows(parts, worn, self._device, self._is_strict)
            for parts in (layout.text, layout.picture, layout.segments.lengths)
        )
        rotation = (torch.cat([c for c, _ in rotations]), torch.cat([s for _, s in rotations]))

        text = of_text(model.context_embedder, torch.cat(list(prompts)))
        picture = of_picture(model.x_embedder, torch.cat(list(pictures)))
        text_times = times.double_text.chunk(6, dim=-1)
        picture_times = times.double_picture.chunk(6, dim=-1)
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
        token_times = times.single.chunk(3, dim=-1)
        for block in model.single_transformer_blocks:
            tokens = self._single(block, tokens, token_times, rotation, layout, of_all)
        picture = reorder(tokens, layout.to_streams)[sum(layout.text) :]
        out = times.out.chunk(2, dim=-1)
        picture = self._pointwise.modulated(
            picture, model.norm_out.norm.eps, out[0], out[1], layout.row_of_picture
        )
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
        attn, do = block.attn, self._pointwise
        by_text, by_picture = layout.row_of_text, layout.row_of_picture
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = picture_times
        c_shift, c_scale, c_gate, c_shift_mlp, c_scale_mlp, c_gate_mlp = text_times
        x = do.modulated(picture, block.norm1.eps, scale, shift, by_picture)
        c = do.modulated(text, block.norm1_context.eps, c_scale, c_shift, by_text)

        def turned(of_prompt: Any, of_image: Any, norms: tuple[Any, Any]) -> Tensor:
            return do.joined(
                _heads(of_text(of_prompt, c), attn),
                _heads(of_picture(of_image, x), attn),
                (norms[0].weight, norms[1].weight),
                (norms[0].eps, norms[1].eps),
                rotation,
                layout.to_rows,
            )

        query = turned(attn.add_q_proj, attn.to_q, (attn.norm_added_q, attn.norm_q))
        key = turned(attn.add_k_proj, attn.to_k, (attn.norm_added_k, attn.norm_k))
        value = torch.cat([of_text(attn.add_v_proj, c), of_picture(attn.to_v, x)])
        value = _heads(reorder(value, layout.to_rows), attn)
        seen = self._attend(query, key, value, layout.segments).flatten(1)
        seen = reorder(seen, layout.to_streams)
        count = sum(layout.text)
        picture = do.gated_sum(picture, gate, of_picture(attn.to_out[0], seen[count:]), by_picture)
        x = do.modulated(picture, block.norm2.eps, scale_mlp, shift_mlp, by_picture)
        picture = do.gated_sum(picture, gate_mlp, self._feed(block.ff, x, of_picture), by_picture)
        text = do.gated_sum(text, c_gate, of_text(attn.to_add_out, seen[:count]), by_text)
        c = do.modulated(text, block.norm2_context.eps, c_scale_mlp, c_shift_mlp, by_text)
        text = do.gated_sum(text, c_gate_mlp, self._feed(block.ff_context, c, of_text), by_text)
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
        attn, do, by_token = block.attn, self._pointwise, layout.row_of_token
        shift, scale, gate = times
        x = do.modulated(tokens, block.norm.eps, scale, shift, by_token)
        x = of_all(attn.to_qkv_mlp_proj, x)
        width = attn.inner_dim
        query, key, value = (_heads(part, attn) for part in x[:, : 3 * width].chunk(3, dim=1))
        seen = self._attend(
            do.rotated(query, attn.norm_q.weight, attn.norm_q.eps, rotation),
            do.rotated(key, attn.norm_k.weight, attn.norm_k.eps, rotation),
            value,
            layout.segments,
        )
        x = do.beside_swiglu(seen.flatten(1), x[:, 3 * width :])
        return do.gated_sum(tokens, gate, of_all(attn.to_out, x), by_token)

    def _feed(self, feed: Any, x: Tensor, gated: _Rows) -> Tensor:
        return gated(feed.linear_out, self._pointwise.swiglu(gated(feed.linear_in, x)))


class _Rows:
    """Applies linear layers to the packed tokens of some rows, each with its own style."""

    def __init__(
        self,
        lengths: Sequence[int],
        worn: Sequence[Worn | None],
        device: torch.device,
        is_strict: bool = False,
    ) -> None:
        self._lengths = lengths
        self._is_strict = is_strict
        self._shortest = min(lengths)
        self._device = device
        ends = list(accumulate(lengths))
        self._dressed = [
            (slice(end - length, end), style)
            for length, end, style in zip(lengths, ends, worn, strict=True)
            if style is not None
        ]

    def __call__(self, layer: nn.Module, x: Tensor) -> Tensor:
        floor = least_rows((cast(nn.Linear, layer),), self._device)
        is_one = len(self._lengths) == 1 or (self._shortest >= floor and not self._is_strict)
        if is_one:
            y = cast(Tensor, layer(x))
        else:
            runs = list(self._lengths) if self._is_strict else self._runs(floor)
            y = torch.cat([layer(run) for run in torch.split(x, runs)])
        for tokens, worn in self._dressed:  # y is ours alone
            adapter = worn.style.adapters.get(layer)
            if adapter is not None:
                adapter.add_to(y[tokens], x[tokens], worn.strength)
        return y

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


class _Times:
    """What the noise levels do to each row: (rows, N) shifts, scales and gates.

    Row by row: products that are one token high are below every floor.
    """

    def __init__(
        self, model: Any, timesteps: Tensor, worn: Sequence[Worn | None], dtype: torch.dtype
    ) -> None:
        rows = []
        for i, style in enumerate(worn):
            gated = _Rows([1], [style], timesteps.device)
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
        self._take([torch.cat(parts) for parts in zip(*rows, strict=True)])

    def repeat(self) -> None:
        """Every row a second time, which no token belongs to."""
        parts = (self.double_text, self.double_picture, self.single, self.out)
        self._take([part.repeat(2, 1) for part in parts])

    def _take(self, parts: Sequence[Tensor]) -> None:
        self.double_text, self.double_picture, self.single, self.out = parts


def _heads(x: Tensor, attn: Any) -> Tensor:
    return x.view(len(x), -1, attn.head_dim)
