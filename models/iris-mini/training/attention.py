"""Attention for training: torch's own on CUDA, and another on a CPU, whose way back is slow.

There the backward pass of torch's fused attention took a quarter of a training step. Written as
four matrix products it takes a third to two thirds of that time at the token counts that occur
here. Both passes are opaque to torch.compile, which fails on the products with shapes that vary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def attention(query: Tensor, key: Tensor, value: Tensor, **_: Any) -> Tensor:
    """(B, tokens, heads, width) to the same: softmax attention of all tokens to all."""
    # autocast does not know this operation; the values come as it left them
    query, key, value = (
        part.to(value.dtype).transpose(1, 2).contiguous() for part in (query, key, value)
    )
    if value.is_cuda:
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    found: Tensor = _forward(query, key, value)
    return found.transpose(1, 2)


@torch.library.custom_op("iris_mini::attention", mutates_args=())
def _forward(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value).contiguous()


@_forward.register_fake
def _(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.empty_like(query)


@torch.library.custom_op("iris_mini::attention_backward", mutates_args=())
def _backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, found: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    scale = query.shape[-1] ** -0.5
    weights = torch.softmax((query * scale) @ key.transpose(-1, -2), dim=-1)
    inner = (gradient * found).sum(-1, keepdim=True)
    scores = (gradient @ value.transpose(-1, -2)).sub_(inner).mul_(weights).mul_(scale)
    return (
        scores @ key,
        scores.transpose(-1, -2) @ query,
        weights.transpose(-1, -2) @ gradient,
    )


@_backward.register_fake
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, found: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _back(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value, found = ctx.saved_tensors
    grads: tuple[Tensor, Tensor, Tensor] = _backward(
        gradient.to(query.dtype).contiguous(), query, key, value, found
    )
    return grads


_forward.register_autograd(_back, setup_context=_save)
