"""What a pass computes, and what it leaves."""

from unittest.mock import patch

from torch.nn import functional

from iris.engine.denoiser import Denoiser
from tests.engine.conftest import a_gradient, a_job, stepped


def test_the_last_block_makes_nothing_of_tokens_that_nobody_reads(fine):
    """Of prompts and references it takes keys and values alone, and of the others all."""
    components, _ = fine
    transformer = components.transformer
    last = transformer.single_transformer_blocks[-1].attn
    heights = {"in": [], "out": [], "velocities": []}
    kinds = {
        last.to_qkv_mlp_proj.weight.untyped_storage().data_ptr(): "in",
        last.to_out.weight.untyped_storage().data_ptr(): "out",
        transformer.proj_out.weight.untyped_storage().data_ptr(): "velocities",
    }

    def counted(x, weight, bias=None, product=functional.linear):
        kind = kinds.get(weight.untyped_storage().data_ptr())
        if kind is not None:
            heights[kind].append((len(x), len(weight)))
        return product(x, weight, bias)

    images = (a_gradient(96, 64), a_gradient(64, 64, 1))
    job = a_job(width_px=128, height_px=96, images=images, num_inference_steps=1)
    with patch.object(functional, "linear", counted):
        stepped(fine, Denoiser(*fine), [job])
    painted, references = 8 * 6, 6 * 4 + 4 * 4  # of 16 px
    tokens = components.text_tokens + painted + references
    width, fed = last.inner_dim, 2 * last.mlp_hidden_dim
    assert sorted(heights["in"]) == sorted([(tokens, 2 * width), (painted, width), (painted, fed)])
    assert heights["out"] == [(painted, last.to_out.out_features)]
    assert heights["velocities"] == [(painted, transformer.config.in_channels)]
