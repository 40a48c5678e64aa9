"""Unlike rows side by side in one sequence, without padding.

Tokens lie in one of two orders: by stream, all prompts and then all pictures, as the double
blocks keep them apart; or by row, each prompt before its own picture, as attention wants them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from iris.engine.attention import Segments
from iris.engine.transfer import upload


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each row's tokens lie in both orders.

    Where there is one row, whose orders are the same, index tensors are None and `to_painted` is a
    slice, unless it is laid out as one of several.
    """

    text: tuple[int, ...]  # tokens of each row's prompt
    picture: tuple[int, ...]  # tokens of each row's picture, references included
    painted: tuple[int, ...]  # those of the picture itself, which come first
    segments: Segments  # by row
    painting: Segments  # by row, where only painted tokens ask
    to_painted: Tensor | slice  # (painted tokens,) their places by row
    row_of_text: Tensor | None = None  # (text tokens,) the row a token belongs to
    row_of_picture: Tensor | None = None  # (picture tokens,)
    row_of_token: Tensor | None = None  # (tokens,) by row
    row_of_painted: Tensor | None = None  # (painted tokens,)
    to_rows: Tensor | None = None  # (tokens,) by row: the token's place by stream
    to_streams: Tensor | None = None  # (tokens,) by stream: the token's place by row

    @classmethod
    @lru_cache(maxsize=32)  # the same pictures take many steps together
    def of(
        cls,
        text: tuple[int, ...],
        picture: tuple[int, ...],
        painted: tuple[int, ...],
        device: torch.device,
        as_several: bool = False,
    ) -> Layout:
        """Lay out rows of so many tokens; one row too with indices, if asked."""
        lengths = tuple(map(sum, zip(text, picture, strict=True)))
        segments, painting = Segments(lengths, device), Segments(lengths, device, painted)
        if len(lengths) == 1 and not as_several:
            places = slice(text[0], text[0] + painted[0])
            return cls(text, picture, painted, segments, painting, places)
        to_rows: list[int] = []
        to_painted: list[int] = []
        row_of: list[list[int]] = [[], [], [], []]
        text_start, picture_start, start = 0, sum(text), 0
        for row, counts in enumerate(zip(text, picture, lengths, painted, strict=True)):
            prompt, image, both, asking = counts
            to_rows += range(text_start, text_start + prompt)
            to_rows += range(picture_start, picture_start + image)
            to_painted += range(start + prompt, start + prompt + asking)
            text_start, picture_start = text_start + prompt, picture_start + image
            start += both
            for rows, count in zip(row_of, counts, strict=True):
                rows += [row] * count
        forth = torch.tensor(to_rows)
        index = [torch.tensor(to_painted), *map(torch.tensor, row_of), forth, forth.argsort()]
        there = [upload(i, device) for i in index]
        return cls(text, picture, painted, segments, painting, *there)


def spread(values: Tensor, row_of: Tensor | None) -> Tensor:
    """(rows, N) -> a row's values for each of its tokens; (1, N) stays as it is."""
    return values if row_of is None else values[row_of]


def reorder(tokens: Tensor, index: Tensor | slice | None) -> Tensor:
    """Tokens, the first dimension, in the other order, or those alone that the index names."""
    return tokens if index is None else tokens[index]
