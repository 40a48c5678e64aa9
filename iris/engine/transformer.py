"""The FLUX.2 transformer over a packed sequence: rows of unlike size, time and style at once.

The weights and their modules are those of diffusers' Flux2Transformer2DModel; what is ours is the
way through them. Everything that mixes tokens is attention, and attention stays within a row;
everything that depends on the noise level is computed row by row.
Source: diffusers, models/transformers/transformer_flux2.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from diffusers import Flux2Transformer2DModel
from torch import Tensor, nn

from iris.engine.attention import choose
from iris.engine.dressing import Dressed, Dressing
from iris.engine.floor import least_rows
from iris.engine.lora import Worn
from iris.engine.modulation import Modulation
from iris.engine.packing import Layout, reorder
from iris.engine.pointwise import Heads, Pointwise, Rotation
from iris.engine.quantised import EightBitLinear, Fp8Linear
from iris.engine.recordings import Recordings
from iris.engine.replay import Work
from iris.engine.rows import Rows

_Given = tuple[list[Tensor], list[Tensor], Sequence[int], list[Rotation], Tensor, list[Worn | None]]

_WARM_SIZES = ((150,), (37, 83, 259))  # picture tokens of the rows that a compiler is shown


class PackedTransformer:
    """Predicts velocities for any number of rows in one pass."""

    def __init__(
        self, model: Flux2Transformer2DModel, pointwise: Pointwise, *, is_strict: bool = False
    ) -> None:
        """is_strict: no matrix product spans two rows, see `Components`."""
        self._model: Any = model  # its submodules are not typed
        self._dressing: Dressing | None = None
        self._recordings: Recordings | None = None
        self._is_strict = is_strict
        self._pointwise = pointwise
        weight = model.x_embedder.weight
        self._attend = choose(weight.device, weight.dtype)
        self._device = weight.device
        for module in model.modules():  # measured now, and not while somebody waits
            if isinstance(module, nn.Linear | EightBitLinear):
                least_rows((module,), self._device)
            if isinstance(module, Fp8Linear):
                module.in_fp8 = pointwise.in_fp8
        # without iterating: streamed blocks would all be brought to the device for it
        for block in [*model.single_transformer_blocks.children()][-1:]:  # it is taken apart
            for outputs in _outputs(block.attn):
                least_rows((block.attn.to_qkv_mlp_proj,), self._device, outputs)

    def dress_in_products(self) -> None:
        """From now on the blocks' own products take styles along; their weights become wider.

        Worth it on CUDA, where what goes in and out of products is compiled, and for layers that
        are whole there. Other layers, and styles that have no room, get products of their own.
        """
        model = self._model
        self._dressing = Dressing([*model.transformer_blocks, *model.single_transformer_blocks])

    def record_in(self, recordings: Recordings) -> None:
        """From now on passes over one row are recorded when they come again.

        Worth it on CUDA, for layers that stay where they are and are products of their own there.
        """
        self._recordings = recordings

    def rotation(self, positions: Tensor) -> Rotation:
        """Rotary angles of tokens at positions (tokens, 4)."""
        cosines, sines = self._model.pos_embed(positions)
        return cosines, sines

    def __call__(
        self,
        prompts: Sequence[Tensor],
        pictures: Sequence[Tensor],
        painted: Sequence[int],
        rotations: Sequence[Rotation],
        timesteps: Tensor,
        worn: Sequence[Worn | None],
    ) -> list[Tensor]:
        """Velocities of every row's painted tokens: (tokens, C) each.

        prompts, pictures: (tokens, width) of each row; painted: how many of a picture's tokens,
        from the first, are not references; rotations: of a row's prompt and picture together;
        timesteps: (rows,) 0..1; worn: each row's style.
        """
        lengths = tuple(tuple(map(len, parts)) for parts in (prompts, pictures))
        layout = Layout.of(*lengths, tuple(painted), prompts[0].device, self._is_strict)
        along = None if self._dressing is None else self._dressing.put_on(worn, self._device)
        with self._pointwise.stance():
            recordings = self._recordings
            if recordings is None or len(worn) > 1 or not _is_all(worn[0], along, self._dressing):
                return self._pass(layout, prompts, pictures, rotations, timesteps, worn, along)
            row = prompts[0], pictures[0], rotations[0], timesteps
            return [self._again(recordings, layout, *row, along)]

    def warm(self, text_tokens: int, common: Sequence[int] = ()) -> None:
        """Compile what is to be compiled, for one row and for several of any size; then no more.

        common: picture tokens of rows to be recorded at once, where any are.
        """
        if self._pointwise.is_compiled:
            for sizes in _WARM_SIZES:  # no two lengths equal: what is equal once is taken to stay
                self(*self._rows_of_nothing(text_tokens, sizes))
            self._pointwise.settle()
        if self._recordings is not None:
            for size in sorted(common, reverse=True):  # what comes after fits into its memory
                for _ in range(2):  # done, then recorded
                    self(*self._rows_of_nothing(text_tokens, (size,)))

    def _rows_of_nothing(self, text_tokens: int, sizes: Sequence[int]) -> _Given:
        config, weight = self._model.config, self._model.x_embedder.weight
        return (
            [weight.new_zeros(text_tokens, config.joint_attention_dim)] * len(sizes),
            [weight.new_zeros(size, config.in_channels) for size in sizes],
            sizes,
            [
                self.rotation(torch.zeros(text_tokens + size, 4, device=weight.device))
                for size in sizes
            ],
            torch.full((len(sizes),), 0.5, device=weight.device, dtype=weight.dtype),
            [None] * len(sizes),
        )

    def _again(
        self,
        recordings: Recordings,
        layout: Layout,
        prompt: Tensor,
        picture: Tensor,
        rotation: Rotation,
        timesteps: Tensor,
        along: Dressed | None,
    ) -> Tensor:
        """A pass over one row, whose style, if any, is all put on."""
        laid = None if along is None else cast(Dressing, self._dressing).laid

        def begin() -> Work:
            # What was laid before is gone, and so is what would have replayed it.
            if laid is not None:
                recordings.forget(lambda key: cast(tuple[Any, ...], key)[2] not in (None, laid))

            def work(
                prompt: Tensor,
                picture: Tensor,
                cosines: Tensor,
                sines: Tensor,
                times: Tensor,
                *strengths: Tensor,
            ) -> Tensor:
                dressed = replace(along, strengths=strengths[0]) if along is not None else None
                rotations = [(cosines, sines)]
                return self._pass(layout, [prompt], [picture], rotations, times, [None], dressed)[0]

            return work

        inputs = [prompt, picture, *rotation, timesteps]
        inputs += [] if along is None else [along.strengths]
        key = len(prompt), len(picture), laid, layout.painted
        return recordings.run(key, begin, inputs)

    def _pass(
        self,
        layout: Layout,
        prompts: Sequence[Tensor],
        pictures: Sequence[Tensor],
        rotations: Sequence[Rotation],
        timesteps: Tensor,
        worn: Sequence[Worn | None],
        along: Dressed | None,
    ) -> list[Tensor]:
        model = self._model
        times = Modulation(model, timesteps, worn, pictures[0].dtype)
        if self._is_strict and len(timesteps) == 1:
            # A graph that is compiled for one row rounds otherwise than that for several.
            times.repeat()
        of_text, of_picture, of_all, of_painted = self._rows(layout, worn, along)
        rotation = (torch.cat([c for c, _ in rotations]), torch.cat([s for _, s in rotations]))

        text = of_text(model.context_embedder, torch.cat(list(prompts)))
        picture = of_picture(model.x_embedder, torch.cat(list(pictures)))
        streams = self._doubles(text, picture, times, rotation, layout, of_text, of_picture)
        tokens = reorder(torch.cat(streams), layout.to_rows)
        painted = self._singles(tokens, times, rotation, layout, of_all, of_painted)
        out = _apart(times.out, 2)
        painted = self._pointwise.modulated(  # with room like the others: one graph for all
            painted,
            model.norm_out.norm.eps,
            out[0],
            out[1],
            layout.row_of_painted,
            self._has_room,
        )
        return list(torch.split(of_painted(model.proj_out, painted), list(layout.painted)))

    def _rows(
        self, layout: Layout, worn: Sequence[Worn | None], along: Dressed | None
    ) -> tuple[Rows, Rows, Rows, Rows]:
        """Of prompts, of pictures, of both together and of what is painted."""
        return (
            self._rows_of(layout.text, layout.row_of_text, worn, along),
            self._rows_of(layout.picture, layout.row_of_picture, worn, along),
            self._rows_of(layout.segments.lengths, layout.row_of_token, worn, along),
            self._rows_of(layout.painted, layout.row_of_painted, worn, along),
        )

    def _rows_of(
        self,
        lengths: Sequence[int],
        row_of: Tensor | None,
        worn: Sequence[Worn | None],
        along: Dressed | None,
    ) -> Rows:
        dressed = None if along is None else along.over(lengths, row_of)
        return Rows(lengths, worn, self._device, self._is_strict, dressed)

    def _doubles(
        self,
        text: Tensor,
        picture: Tensor,
        times: Modulation,
        rotation: Rotation,
        layout: Layout,
        of_text: Rows,
        of_picture: Rows,
    ) -> tuple[Tensor, Tensor]:
        """Through the blocks that keep prompts and pictures apart; all share their modulation.

        What a block's last product gives is added by the next block, which reads it anyway.
        """
        do, room = self._pointwise, self._has_room
        by_text, by_picture = layout.row_of_text, layout.row_of_picture
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = _apart(times.double_picture, 6)
        c_shift, c_scale, c_gate, c_shift_mlp, c_scale_mlp, c_gate_mlp = _apart(
            times.double_text, 6
        )
        count = sum(layout.text)
        owed: tuple[Tensor, Tensor] | None = None  # to prompts, to pictures
        for block in self._model.transformer_blocks:
            attn, eps, c_eps = block.attn, block.norm1.eps, block.norm1_context.eps
            if owed is None:
                c = do.modulated(text, c_eps, c_scale, c_shift, by_text, room)
                x = do.modulated(picture, eps, scale, shift, by_picture, room)
            else:
                text, c = do.carried_on(
                    text, c_gate_mlp, owed[0], c_eps, c_scale, c_shift, by_text, room
                )
                picture, x = do.carried_on(
                    picture, gate_mlp, owed[1], eps, scale, shift, by_picture, room
                )
            query, key, value = do.joined(
                _heads(of_text.all((attn.add_q_proj, attn.add_k_proj, attn.add_v_proj), c), attn),
                _heads(of_picture.all((attn.to_q, attn.to_k, attn.to_v), x), attn),
                (
                    (attn.norm_added_q.weight, attn.norm_q.weight),
                    (attn.norm_added_k.weight, attn.norm_k.weight),
                ),
                (
                    (attn.norm_added_q.eps, attn.norm_q.eps),
                    (attn.norm_added_k.eps, attn.norm_k.eps),
                ),
                rotation,
                layout.to_rows,
            )
            seen = self._attend(query, key, value, layout.segments).flatten(1)
            seen = reorder(seen, layout.to_streams)
            text, c = do.carried_on(
                text,
                c_gate,
                of_text(attn.to_add_out, seen[:count]),
                block.norm2_context.eps,
                c_scale_mlp,
                c_shift_mlp,
                by_text,
                room,
            )
            picture, x = do.carried_on(
                picture,
                gate,
                of_picture(attn.to_out[0], seen[count:]),
                block.norm2.eps,
                scale_mlp,
                shift_mlp,
                by_picture,
                room,
            )
            owed = self._feed(block.ff_context, c, of_text), self._feed(block.ff, x, of_picture)
        if owed is not None:
            text = do.gated_sum(text, c_gate_mlp, owed[0], by_text)
            picture = do.gated_sum(picture, gate_mlp, owed[1], by_picture)
        return text, picture

    def _singles(
        self,
        tokens: Tensor,
        times: Modulation,
        rotation: Rotation,
        layout: Layout,
        of_all: Rows,
        of_painted: Rows,
    ) -> Tensor:
        """Through the blocks that take both together, as `_doubles` does; what is painted of it.

        Nobody reads what the last block makes of prompts and references: there they are looked at
        and no more.
        """
        do, room, by_token = self._pointwise, self._has_room, layout.row_of_token
        shift, scale, gate = _apart(times.single, 3)
        owed: Tensor | None = None
        blocks = self._model.single_transformer_blocks
        for number, block in enumerate(blocks, 1):
            eps = block.norm.eps
            if owed is None:
                x = do.modulated(tokens, eps, scale, shift, by_token, room)
            else:
                tokens, x = do.carried_on(tokens, gate, owed, eps, scale, shift, by_token, room)
            if number < len(blocks):
                owed = self._single(block.attn, x, rotation, layout, of_all)
            else:
                owed = self._last(block.attn, x, rotation, layout, of_all, of_painted)
        painted = reorder(tokens, layout.to_painted)
        return painted if owed is None else do.gated_sum(painted, gate, owed, layout.row_of_painted)

    def _single(
        self, attn: Any, x: Tensor, rotation: Rotation, layout: Layout, of_all: Rows
    ) -> Tensor:
        """Attention and feed-forward of one block, side by side."""
        x = of_all(attn.to_qkv_mlp_proj, x)
        width = attn.inner_dim
        query, key, value = _heads(x[:, : 3 * width].chunk(3, dim=1), attn)
        query, key = self._pointwise.rotated(
            query,
            key,
            (attn.norm_q.weight, attn.norm_k.weight),
            (attn.norm_q.eps, attn.norm_k.eps),
            rotation,
        )
        seen = self._attend(query, key, value, layout.segments).flatten(1)
        x = self._pointwise.beside_swiglu(seen, x[:, 3 * width :], self._has_room)
        return of_all(attn.to_out, x)

    def _last(
        self,
        attn: Any,
        x: Tensor,
        rotation: Rotation,
        layout: Layout,
        of_all: Rows,
        of_painted: Rows,
    ) -> Tensor:
        """`_single` for painted tokens: (painted tokens, width)."""
        do, layer, to_painted = self._pointwise, attn.to_qkv_mlp_proj, layout.to_painted
        queries, keys_and_values, feed = _outputs(attn)
        (looked_at,) = of_all.parts(layer, x, [keys_and_values])
        asked, fed = of_painted.parts(layer, reorder(x, to_painted), [queries, feed])
        query, key, value = _heads((asked, *looked_at.chunk(2, dim=1)), attn)
        of_queries = reorder(rotation[0], to_painted), reorder(rotation[1], to_painted)
        query = do.turned(query, attn.norm_q.weight, attn.norm_q.eps, of_queries)
        key = do.turned(key, attn.norm_k.weight, attn.norm_k.eps, rotation)
        seen = self._attend(query, key, value, layout.painting).flatten(1)
        return of_painted(attn.to_out, do.beside_swiglu(seen, fed, self._has_room))

    @property
    def _has_room(self) -> bool:
        return self._dressing is not None

    def _feed(self, feed: Any, x: Tensor, of_rows: Rows) -> Tensor:
        x = self._pointwise.swiglu(of_rows(feed.linear_in, x), self._has_room)
        return of_rows(feed.linear_out, x)


def _apart(values: Tensor, count: int) -> list[Tensor]:
    """(rows, count * N) -> (rows, N) each, in memory of its own.

    The compiler makes one graph more for parts that begin elsewhere in what they are a part of.
    """
    return [part.clone() for part in values.chunk(count, dim=-1)]


def _outputs(attn: Any) -> tuple[slice, slice, slice]:
    """Of a single block's first product: queries; keys and values; what is fed forward."""
    width = attn.inner_dim
    return slice(width), slice(width, 3 * width), slice(3 * width, None)


def _heads(parts: Sequence[Tensor], attn: Any) -> Heads:
    """Queries, keys and values, (tokens, width) each, cut into heads."""
    query, key, value = (part.view(len(part), -1, attn.head_dim) for part in parts)
    return query, key, value


def _is_all(worn: Worn | None, along: Dressed | None, dressing: Dressing | None) -> bool:
    """Whether a row wears nothing but what is along."""
    if worn is None or along is None or dressing is None:
        return worn is None
    return dressing.covers(worn.style)
