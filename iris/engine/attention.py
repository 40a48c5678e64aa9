"""Attention inside each segment of one packed sequence; no token sees another segment.

Every implementation takes the same and is held to the same test. None of them takes a mask:
a block-diagonal one costs the square of the whole sequence, and is dropped silently by some of the
fused kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby, pairwise
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

from iris.engine.transfer import upload

_NEWER = (9, 0)  # Hopper: from here on there are faster kernels than FlashAttention 2
_HIGH = 1024  # tokens of a segment from which it keeps such a device busy by itself


@dataclass(frozen=True)
class Segments:
    """Where the segments of a packed sequence begin and end."""

    lengths: tuple[int, ...]
    device: torch.device
    asking: tuple[int, ...] | None = None  # queries of each segment, where not every token has one

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """len(lengths) + 1 places, from 0 to the number of tokens."""
        return _bounds(self.lengths)

    @cached_property
    def asking_bounds(self) -> tuple[int, ...]:
        """The same of the queries."""
        return self.bounds if self.asking is None else _bounds(self.asking)

    @cached_property
    def cumulative(self) -> Tensor:
        """`bounds` on the device, int32."""
        return upload(torch.tensor(self.bounds, dtype=torch.int32), self.device)

    @cached_property
    def asking_cumulative(self) -> Tensor:
        """`asking_bounds` on the device, int32."""
        if self.asking is None:
            return self.cumulative
        return upload(torch.tensor(self.asking_bounds, dtype=torch.int32), self.device)

    @cached_property
    def by_height(self) -> tuple[tuple[bool, slice, slice, Segments], ...]:
        """Neighbours that are high, or are not, together: whether they are; queries and tokens."""
        runs = []
        asking, tokens = self.asking_bounds, self.bounds
        for is_high, members in groupby(
            range(len(self.lengths)), lambda number: self.lengths[number] >= _HIGH
        ):
            first, *others = members
            end = first + len(others) + 1
            part = Segments(
                self.lengths[first:end],
                self.device,
                None if self.asking is None else self.asking[first:end],
            )
            of_queries, of_tokens = (slice(b[first], b[end]) for b in (asking, tokens))
            runs.append((is_high, of_queries, of_tokens, part))
        return tuple(runs)


def _bounds(lengths: Iterable[int]) -> tuple[int, ...]:
    return tuple(accumulate(lengths, initial=0))


# query: (queries, heads, head width), key, value: (tokens, heads, head width); the answer is shaped
# as the queries.
Attention = Callable[[Tensor, Tensor, Tensor, Segments], Tensor]


def one_by_one(query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """A call of the fused kernel for each segment: what a segment gives cannot depend on others."""
    parts = []
    places = zip(pairwise(segments.asking_bounds), pairwise(segments.bounds), strict=True)
    for asking, tokens in places:
        parts_of_it = query[slice(*asking)], key[slice(*tokens)], value[slice(*tokens)]
        q, k, v = (part.transpose(0, 1)[None] for part in parts_of_it)
        parts.append(functional.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def varlen(query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """One launch for all segments: FlashAttention with cumulative lengths. CUDA, 16-bit only."""
    ends = segments.asking_cumulative, segments.cumulative
    longest = max(segments.asking or segments.lengths), max(segments.lengths)
    return cast(Tensor, varlen_attn(query, key, value, *ends, *longest))


def by_height(query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """Each high segment by itself, those between them in one launch.

    Which way a segment goes is decided by its own height, so what it gives does not depend on its
    company. By itself a segment gets what the library holds to be its fastest kernel on this
    device; only FlashAttention 2, which is older than Hopper, takes segments of any length
    together. The first segment of a length, and of so many queries, waits for its kernel to be
    planned: some 40 ms on an H200, once a thread. CUDA, 16-bit only.
    """
    parts = [
        (one_by_one if is_high else varlen)(query[asking], key[tokens], value[tokens], members)
        for is_high, asking, tokens, members in segments.by_height
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def choose(device: torch.device, dtype: torch.dtype) -> Attention:
    """The fastest implementation that can serve tensors of this kind."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return one_by_one
    is_newer = torch.cuda.get_device_capability(device) >= _NEWER
    return by_height if is_newer else varlen
