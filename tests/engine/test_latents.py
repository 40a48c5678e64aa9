import pytest
import torch
from diffusers import Flux2KleinPipeline

from iris.engine.latents import (
    Grid,
    image_positions,
    patchify,
    text_positions,
    to_cells,
    to_tokens,
    unpatchify,
)


@pytest.mark.parametrize(
    ("width_px", "height_px", "per_token", "rows", "columns"),
    [(768, 768, 16, 48, 48), (704, 480, 32, 15, 22), (16, 960, 32, 30, 1), (528, 16, 64, 1, 9)],
)
def test_a_grid_is_the_smallest_that_covers_the_picture(
    width_px, height_px, per_token, rows, columns
):
    grid = Grid.covering(width_px, height_px, per_token)
    assert (grid.rows, grid.columns) == (rows, columns)
    assert grid.tokens == rows * columns


def test_folding_is_the_pipelines_and_unfolds_again():
    latents = torch.randn(2, 3, 6, 10)
    cells = patchify(latents)
    assert torch.equal(cells, Flux2KleinPipeline._patchify_latents(latents))
    assert torch.equal(unpatchify(cells), latents)
    tokens = to_tokens(cells)
    assert torch.equal(tokens, Flux2KleinPipeline._pack_latents(cells))
    assert torch.equal(to_cells(tokens, Grid(3, 5)), cells)


def test_positions_are_the_pipelines():
    picture = torch.zeros(1, 4, 3, 5)
    references = [torch.zeros(1, 4, 2, 4), torch.zeros(1, 4, 6, 1)]
    assert torch.equal(
        image_positions(Grid(3, 5)), Flux2KleinPipeline._prepare_latent_ids(picture)[0]
    )
    ours = torch.cat([image_positions(Grid(2, 4), 0), image_positions(Grid(6, 1), 1)])
    assert torch.equal(ours, Flux2KleinPipeline._prepare_image_ids(references)[0])
    text = torch.zeros(1, 7, 8)
    assert torch.equal(text_positions(7), Flux2KleinPipeline._prepare_text_ids(text)[0])
