"""Attention inside each segment of one packed sequence; no token sees another segment.

Every implementation takes the same and is held to the same test. None of them takes a mask:
a block-diagonal one costs the square of the whole sequence, and is dropped silently by some of the
fused kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice, pairwise
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

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """len(lengths) + 1 places, from 0 to the number of tokens."""
        places = [0]
        for length in self.lengths:
            places.append(places[-1] + length)
        return tuple(places)

    @cached_property
    def cumulative(self) -> Tensor:
        """`bounds` on the device, int32."""
        return upload(torch.tensor(self.bounds, dtype=torch.int32), self.device)

    @cached_property
    def by_height(self) -> tuple[tuple[bool, slice, Segments], ...]:
        """Neighbours that are high, or are not, together: whether they are, and their tokens."""
        runs = []
        places = iter(self.bounds)
        start = next(places)
        for is_high, members in groupby(self.lengths, lambda length: length >= _HIGH):
            lengths = tuple(members)
            *_, end = islice(places, len(lengths))
            runs.append((is_high, slice(start, end), Segments(lengths, self.device)))
            start = end
        return tuple(runs)


# query, key, value: (tokens, heads, head width); the answer has the same shape.
Attention = Callable[[Tensor, Tensor, Tensor, Segments], Tensor]


def one_by_one(query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """A call of the fused kernel for each segment: what a segment gives cannot depend on others."""
    parts = []
    for start, end in pairwise(segments.bounds):
        q, k, v = (part[start:end].transpose(0, 1)[None] for part in (query, key, value))
        parts.append(functional.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def varlen(query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """One launch for all segments: FlashAttention with cumulative lengths. CUDA, 16-bit only."""
    ends, longest = segments.cumulative, max(segments.lengths)
    return cast(Tensor, varlen_attn(query, key, value, ends, ends, longest, longest))


def by_height(query: Tensor, key: Tensor, value: Tensor, segments: Segments) -> Tensor:
    """Each high segment by itself, those between them in one launch.

    Which way a segment goes is decided by its own height, so what it gives does not depend on its
    company. By itself a segment gets what the library holds to be its fastest kernel on this
    device; only FlashAttention 2, which is older than Hopper, takes segments of any length
    together. The first segment of a length waits for its kernel to be planned: some 40 ms on an
    H200, once a thread. CUDA, 16-bit only.
    """
    parts = [
        (one_by_one if is_high else varlen)(query[run], key[run], value[run], members)
        for is_high, run, members in segments.by_height
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def choose(device: torch.device, dtype: torch.dtype) -> Attention:
    """The fastest implementation that can serve tensors of this kind."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return one_by_one
    is_newer = torch.cuda.get_device_capability(device) >= _NEWER
    return by_height if is_newer else varlen
