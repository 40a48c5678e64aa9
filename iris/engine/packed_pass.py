"""One packed pass: the tokens of all its rows on their way through the blocks.

The weights and their modules are those of diffusers' Flux2Transformer2DModel; what is ours is the
way through them. Everything that mixes tokens is attention, and attention stays within a row;
everything that depends on the noise level is computed row by row.
Source: diffusers, models/transformers/transformer_flux2.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from iris.engine.attention import Attention
from iris.engine.modulation import Modulation
from iris.engine.packing import Layout, reorder
from iris.engine.pointwise import Heads, Pointwise, Rotation
from iris.engine.rows import Rows


@dataclass(frozen=True, slots=True)
class PackedPass:
    """What all blocks of one pass share."""

    model: Any  # its submodules are not typed
    do: Pointwise
    attend: Attention
    has_room: bool  # whether what goes into the blocks' products has room for styles
    layout: Layout
    times: Modulation
    rotation: Rotation  # of all tokens, by row
    of_text: Rows
    of_picture: Rows
    of_all: Rows
    of_painted: Rows

    def velocities(self, prompts: Tensor, pictures: Tensor) -> list[Tensor]:
        """Of each row's painted tokens, (tokens, C). prompts, pictures: (tokens, width), all."""
        model, layout = self.model, self.layout
        text = self.of_text(model.context_embedder, prompts)
        picture = self.of_picture(model.x_embedder, pictures)
        tokens = reorder(torch.cat(self._doubles(text, picture)), layout.to_rows)
        scale, shift = _apart(self.times.out, 2)
        painted = self.do.modulated(  # with room like the others: one graph for all
            self._singles(tokens),
            model.norm_out.norm.eps,
            scale,
            shift,
            layout.row_of_painted,
            self.has_room,
        )
        return list(torch.split(self.of_painted(model.proj_out, painted), list(layout.painted)))

    def _doubles(self, text: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Through the blocks that keep prompts and pictures apart; all share their modulation.

        What a block's last product gives is added by the next block, which reads it anyway.
        """
        do, room, layout = self.do, self.has_room, self.layout
        by_text, by_picture = layout.row_of_text, layout.row_of_picture
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = _apart(self.times.double_picture, 6)
        c_shift, c_scale, c_gate, c_shift_mlp, c_scale_mlp, c_gate_mlp = _apart(
            self.times.double_text, 6
        )
        count = sum(layout.text)
        owed: tuple[Tensor, Tensor] | None = None  # to prompts, to pictures
        for block in self.model.transformer_blocks:
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
                _heads(
                    self.of_text.all((attn.add_q_proj, attn.add_k_proj, attn.add_v_proj), c), attn
                ),
                _heads(self.of_picture.all((attn.to_q, attn.to_k, attn.to_v), x), attn),
                (
                    (attn.norm_added_q.weight, attn.norm_q.weight),
                    (attn.norm_added_k.weight, attn.norm_k.weight),
                ),
                (
                    (attn.norm_added_q.eps, attn.norm_q.eps),
                    (attn.norm_added_k.eps, attn.norm_k.eps),
                ),
                self.rotation,
                layout.to_rows,
            )
            seen = self.attend(query, key, value, layout.segments).flatten(1)
            seen = reorder(seen, layout.to_streams)
            text, c = do.carried_on(
                text,
                c_gate,
                self.of_text(attn.to_add_out, seen[:count]),
                block.norm2_context.eps,
                c_scale_mlp,
                c_shift_mlp,
                by_text,
                room,
            )
            picture, x = do.carried_on(
                picture,
                gate,
                self.of_picture(attn.to_out[0], seen[count:]),
                block.norm2.eps,
                scale_mlp,
                shift_mlp,
                by_picture,
                room,
            )
            owed = (
                self._feed(block.ff_context, c, self.of_text),
                self._feed(block.ff, x, self.of_picture),
            )
        if owed is not None:
            text = do.gated_sum(text, c_gate_mlp, owed[0], by_text)
            picture = do.gated_sum(picture, gate_mlp, owed[1], by_picture)
        return text, picture

    def _singles(self, tokens: Tensor) -> Tensor:
        """Through the blocks that take both together, as `_doubles` does; what is painted of it.

        Nobody reads what the last block makes of prompts and references: there they are looked at
        and no more.
        """
        do, room, layout = self.do, self.has_room, self.layout
        shift, scale, gate = _apart(self.times.single, 3)
        owed: Tensor | None = None
        blocks = self.model.single_transformer_blocks
        for number, block in enumerate(blocks, 1):
            eps = block.norm.eps
            if owed is None:
                x = do.modulated(tokens, eps, scale, shift, layout.row_of_token, room)
            else:
                tokens, x = do.carried_on(
                    tokens, gate, owed, eps, scale, shift, layout.row_of_token, room
                )
            if number < len(blocks):
                owed = self._single(block.attn, x)
            else:
                owed = self._last(block.attn, x)
        painted = reorder(tokens, layout.to_painted)
        return painted if owed is None else do.gated_sum(painted, gate, owed, layout.row_of_painted)

    def _single(self, attn: Any, x: Tensor) -> Tensor:
        """Attention and feed-forward of one block, side by side."""
        x = self.of_all(attn.to_qkv_mlp_proj, x)
        width = attn.inner_dim
        query, key, value = _heads(x[:, : 3 * width].chunk(3, dim=1), attn)
        query, key = self.do.rotated(
            query,
            key,
            (attn.norm_q.weight, attn.norm_k.weight),
            (attn.norm_q.eps, attn.norm_k.eps),
            self.rotation,
        )
        seen = self.attend(query, key, value, self.layout.segments).flatten(1)
        x = self.do.beside_swiglu(seen, x[:, 3 * width :], self.has_room)
        return self.of_all(attn.to_out, x)

    def _last(self, attn: Any, x: Tensor) -> Tensor:
        """`_single` for painted tokens: (painted tokens, width)."""
        do, layer, to_painted = self.do, attn.to_qkv_mlp_proj, self.layout.to_painted
        queries, keys_and_values, feed = outputs(attn)
        (looked_at,) = self.of_all.parts(layer, x, [keys_and_values])
        asked, fed = self.of_painted.parts(layer, reorder(x, to_painted), [queries, feed])
        query, key, value = _heads((asked, *looked_at.chunk(2, dim=1)), attn)
        of_queries = reorder(self.rotation[0], to_painted), reorder(self.rotation[1], to_painted)
        query = do.turned(query, attn.norm_q.weight, attn.norm_q.eps, of_queries)
        key = do.turned(key, attn.norm_k.weight, attn.norm_k.eps, self.rotation)
        seen = self.attend(query, key, value, self.layout.painting).flatten(1)
        return self.of_painted(attn.to_out, do.beside_swiglu(seen, fed, self.has_room))

    def _feed(self, feed: Any, x: Tensor, of_rows: Rows) -> Tensor:
        x = self.do.swiglu(of_rows(feed.linear_in, x), self.has_room)
        return of_rows(feed.linear_out, x)


def _apart(values: Tensor, count: int) -> list[Tensor]:
    """(rows, count * N) -> (rows, N) each, in memory of its own.

    The compiler makes one graph more for parts that begin elsewhere in what they are a part of.
    """
    return [part.clone() for part in values.chunk(count, dim=-1)]


def outputs(attn: Any) -> tuple[slice, slice, slice]:
    """Of a single block's first product: queries; keys and values; what is fed forward."""
    width = attn.inner_dim
    return slice(width), slice(width, 3 * width), slice(3 * width, None)


def _heads(parts: Sequence[Tensor], attn: Any) -> Heads:
    """Queries, keys and values, (tokens, width) each, cut into heads."""
    query, key, value = (part.view(len(part), -1, attn.head_dim) for part in parts)
    return query, key, value
