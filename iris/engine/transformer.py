"""The FLUX.2 transformer over a packed sequence: rows of unlike size, time and style at once.

Passes are laid out and dressed here, compiled and recorded where that is worth it;
`packed_pass.py` is their way through the blocks.
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
from iris.engine.packed_pass import PackedPass, outputs
from iris.engine.packing import Layout
from iris.engine.pointwise import Pointwise, Rotation
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
            for part in outputs(block.attn):
                least_rows((block.attn.to_qkv_mlp_proj,), self._device, part)

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
        times = Modulation(self._model, timesteps, worn, pictures[0].dtype)
        if self._is_strict and len(timesteps) == 1:
            # A graph that is compiled for one row rounds otherwise than that for several.
            times.repeat()
        packed = PackedPass(
            self._model,
            self._pointwise,
            self._attend,
            self._dressing is not None,
            layout,
            times,
            (torch.cat([c for c, _ in rotations]), torch.cat([s for _, s in rotations])),
            of_text=self._rows(layout.text, layout.row_of_text, worn, along),
            of_picture=self._rows(layout.picture, layout.row_of_picture, worn, along),
            of_all=self._rows(layout.segments.lengths, layout.row_of_token, worn, along),
            of_painted=self._rows(layout.painted, layout.row_of_painted, worn, along),
        )
        return packed.velocities(torch.cat(list(prompts)), torch.cat(list(pictures)))

    def _rows(
        self,
        lengths: Sequence[int],
        row_of: Tensor | None,
        worn: Sequence[Worn | None],
        along: Dressed | None,
    ) -> Rows:
        dressed = None if along is None else along.over(lengths, row_of)
        return Rows(lengths, worn, self._device, self._is_strict, dressed)


def _is_all(worn: Worn | None, along: Dressed | None, dressing: Dressing | None) -> bool:
    """Whether a row wears nothing but what is along."""
    if worn is None or along is None or dressing is None:
        return worn is None
    return dressing.covers(worn.style)
