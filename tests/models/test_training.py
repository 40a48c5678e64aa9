"""How iris-mini is made: latents, captions and noise are what the engine will meet."""

import random
from argparse import ArgumentTypeError
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch.nn import functional

from iris.engine.canvas import Canvas
from iris.engine.latents import (
    Grid,
    image_positions,
    normalise,
    patchify,
    to_cells,
    to_tokens,
)
from iris.errors import StoreError
from iris.training.adapter import adapt, read, write
from training.attention import attention
from training.autoencoder import build_vae, empty_vae
from training.batches import Batches
from training.codec import LinearCodec
from training.components import fit_components
from training.decoder import Decoder, read_decoder, write_decoder
from training.examples import (
    CONTENTS,
    PART,
    SHAPES,
    Camera,
    Shape,
    boxes,
    contents_of,
    make_part,
    part_file,
    save_part,
)
from training.export import farther
from training.grids import (
    COMPOSITION_SIDES,
    GRIDS_OF_COMPOSITIONS,
    GRIDS_OF_REFERENCES,
    REFERENCE_SIDES,
    SIDES,
)
from training.lots import FIRST, FREE, LAST, NAMES, lots_of, tie
from training.refine_decoder import Imagination, Pair, Pool
from training.sources import AS_RENDERED, Taking, draw_taking, take
from training.text import TOKENS, Prompts, build_encoder, build_tokenizer
from training.train_text import FIELDS, labels
from training.train_transformer import times
from training.transformer import (
    COORDINATES,
    LESSONS,
    MOST,
    Taught,
    build_transformer,
    coordinates,
    places,
    positions,
    shifted,
)
from world import sampling
from world.captions.vocabulary import vocabulary
from world.compositions import sample_compose
from world.render import render
from world.spec import COLOURS, KINDS, Backdrop, Example, Intent, Scene, Thing, Wanted


@pytest.fixture(scope="session")
def components():
    rng = random.Random(2)
    pictures = [
        torch.from_numpy(render(sampling.sample_scene(rng), 256, 256)).permute(2, 0, 1)
        for _ in range(24)
    ]
    return fit_components(pictures)


@pytest.fixture(scope="session")
def codec(components):
    return LinearCodec.of(components)


@pytest.fixture(scope="session")
def prompts():
    torch.manual_seed(0)
    tokenizer = build_tokenizer(list(vocabulary()))
    return Prompts(tokenizer, build_encoder(tokenizer).eval())


@pytest.fixture(scope="session")
def camera(codec):
    return Camera(codec)


def test_the_codec_is_the_autoencoders_encoder(components, codec):
    vae = build_vae(components).eval()
    picture = torch.from_numpy(render(sampling.sample_scene(random.Random(1)), 192, 128))
    picture = picture.permute(2, 0, 1)[None]
    with torch.inference_mode():
        mode = vae.encode(picture.float() / 127.5 - 1.0).latent_dist.mode()
        assert torch.allclose(codec.encode(picture), normalise(patchify(mode), vae), atol=1e-3)


def test_the_first_decoder_gives_the_picture_back_roughly(components, codec):
    vae = build_vae(components).eval()
    picture = torch.from_numpy(render(sampling.sample_scene(random.Random(1)), 256, 256))
    picture = picture.permute(2, 0, 1)[None]
    with torch.inference_mode():
        again = vae.decode(codec.latents(codec.encode(picture))).sample
    assert (again - (picture.float() / 127.5 - 1.0)).square().mean() < 0.08


def test_a_decoder_is_read_from_the_autoencoder_as_it_was_written():
    decoder = Decoder()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(std=0.05)
    vae = empty_vae()
    write_decoder(vae, decoder)
    again = dict(read_decoder(vae).named_parameters())
    for name, parameter in decoder.named_parameters():
        assert torch.allclose(parameter, again[name], atol=1e-6), name


def test_the_decoder_is_refined_on_pictures_beside_what_the_transformer_makes_of_them(
    codec, prompts
):
    imagination = Imagination(codec, prompts, build_transformer().eval(), seed=1)
    for pair in (imagination._made(), imagination._exact()):
        _, height, width = pair.picture.shape
        assert pair.picture.dtype == torch.uint8
        assert pair.cells.shape == (128, height // 64, width // 64)
        assert torch.isfinite(pair.cells).all()


def test_crops_of_pictures_and_of_cells_show_the_same_place():
    rows, columns = 6, 9
    numbers = torch.arange(rows * columns).view(rows, columns)
    pixels = numbers.repeat_interleave(64, 0).repeat_interleave(64, 1).to(torch.uint8)
    pair = Pair(pixels.expand(3, -1, -1), numbers.float().expand(128, -1, -1))
    pool = Pool(SimpleNamespace(pair=lambda: pair), random.Random(3))
    for _ in range(20):
        pictures, cells = pool.crops(4)
        assert torch.equal(pictures[:, 0, ::64, ::64].float(), cells[:, 0])


def test_a_small_render_gives_the_latents_of_the_large_one(codec, camera):
    scene = sampling.sample_scene(random.Random(6))
    large = torch.from_numpy(render(scene, 512, 384)).permute(2, 0, 1)[None]
    exact = to_tokens(codec.encode(large))[0]
    quick = camera.tokens(scene, (6, 8))
    assert quick.shape == exact.shape == (48, 128)
    assert (quick - exact).square().mean() < 0.02 * exact.square().mean()


def test_positions_are_the_engines():
    for time, reference in ((0, None), (10, 0), (30, 2)):
        ours = positions((3, 5), time)
        assert torch.equal(ours, image_positions(Grid(3, 5), reference))


def test_a_part_is_the_same_whenever_it_is_made(camera, prompts):
    shape = Shape("edit", (4, 4), ((4, 4),))
    one, other = (make_part(shape, camera, prompts, 1, 0, None) for _ in range(2))
    assert one.intents == other.intents
    assert torch.equal(one.target, other.target)
    assert torch.equal(one.references, other.references)
    assert 0.4 < one.on_grid.float().mean() < 0.8
    assert 0.02 < one.weighty.float().mean() < 0.8


def test_a_source_as_rendered_is_the_render_and_one_from_elsewhere_is_off_the_grid():
    scene = sampling.sample_scene(random.Random(6))
    assert (take(scene, 192, 128, 0.5, AS_RENDERED) == render(scene, 192, 128, 0.5)).all()
    taken = take(scene, 192, 128, 0.5, Taking(12 / 11, (0, 16), 0.01))
    assert taken.shape == (128, 192, 3)
    assert not Taking(12 / 11).is_on_grid
    assert not Taking(missing_px=(16, 0)).is_on_grid
    assert Taking(softness=0.02).is_on_grid
    # eight rows at half size are not there: filled up by the last one that is, as the engine does
    assert (taken[120:] == taken[119]).all()
    assert (taken[119] != taken[110]).any()


def test_half_of_the_sources_come_as_rendered_and_the_others_unlike_each_other():
    rng = random.Random(7)
    takings = [draw_taking(rng, 704, 0.5) for _ in range(2000)]
    assert 0.45 < sum(taking == AS_RENDERED for taking in takings) / 2000 < 0.55
    enlarged = [taking.enlarged for taking in takings]
    assert min(enlarged) < 0.9
    assert max(enlarged) > 1.5
    assert enlarged.count(768 / 704) > 200
    assert any(all(taking.missing_px) for taking in takings)


@pytest.fixture(scope="session")
def examples(camera, prompts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    for shape in (Shape("paint", (4, 15)), Shape("edit", (4, 15), ((4, 15),))):
        save_part(make_part(shape, camera, prompts, 1, 0, None), part_file(folder, shape, 0))
    return folder / "plain"


@pytest.fixture(scope="session")
def batches(examples, prompts):
    return Batches(examples, prompts, tokens=2000, seed=1)


def test_a_shape_that_is_to_come_more_often_does(examples, prompts):
    name = Shape("edit", (4, 15), ((4, 15),)).name
    shares = []
    for more in ({}, {name: 8.0}):
        chooser = Batches(examples, prompts, 2000, 1, more)
        drawn = [chooser._choose() for _ in range(400)]
        samples = {"edit": 0, "paint": 0}
        for shape, _, rows in drawn:
            samples[shape.task] += len(rows)
        shares.append(samples["edit"] / samples["paint"])
    assert 5.5 < shares[1] / shares[0] < 11.0


def test_times_are_those_of_a_shape_that_there_is():
    assert times("paint-12x12=2.5") == ("paint-12x12", 2.5)
    with pytest.raises(ArgumentTypeError, match="paint-99x99"):
        times("paint-99x99=2")
    with pytest.raises(ArgumentTypeError, match="after a ="):
        times("paint-12x12")


def test_a_step_along_the_answer_leads_to_the_target_or_part_of_the_way_there(batches):
    """noisy - sigma * velocity is the picture that is asked for, whatever the noise."""
    seen = set()
    while len(seen) < 2:
        batch = batches.next()
        seen.add(batch.shape.task)
        goal = batch.noisy - batch.sigma.view(-1, 1, 1) * batch.velocity
        assert torch.isfinite(goal).all()
        if batch.shape.task == "paint":
            assert goal.abs().max() < 30
            continue
        # between source and target: no further from either than they are from each other
        from_source = (goal - batch.references).square().mean(dim=(1, 2))
        assert (from_source >= -1e-4).all()
        assert from_source.min() < 0.6 * from_source.max()


def test_a_weak_edit_of_a_source_off_the_grid_is_all_or_nothing(batches, camera, prompts):
    """Half of two pictures that do not lie on each other would be seen double."""
    shape, rows = Shape("edit", (4, 4), ((4, 4),)), torch.arange(PART)
    part = make_part(shape, camera, prompts, 1, 0, None)
    part = replace(part, on_grid=rows % 2 == 0)
    target, references = torch.ones(PART, 16, 128), torch.zeros(PART, 16, 128)
    goals = []
    for _ in range(8):
        noisy, sigma, velocity = batches._noised(shape, target, references, part, rows)
        goals.append((noisy - sigma.view(-1, 1, 1) * velocity).mean((1, 2)))
    share = torch.stack(goals)
    between = (share > 0.02) & (share < 0.98)
    assert between[:, ::2].any()
    assert not between[:, 1::2].any()


def test_no_examples_is_said_with_what_to_do(prompts, tmp_path):
    with pytest.raises(FileNotFoundError, match="make mini-data"):
        Batches(tmp_path, prompts, tokens=2000, seed=1)


def test_prompts_are_cut_so_that_the_registers_stay(prompts):
    ids, mask, first = prompts.ids(["", "a red house " * 60])
    registers = prompts.tokenizer.convert_tokens_to_ids(
        ["<|place|>", "<|change|>", "<|first|>", "<|second|>"]
    )
    for row, start, length in zip(ids.tolist(), first.tolist(), mask.sum(1).tolist(), strict=True):
        assert row[start : start + 4] == registers
        assert length == start + 4 <= TOKENS


def test_what_a_caption_asks_has_a_class_in_every_field():
    rng = random.Random(0)
    for number in range(100):
        example = sample_compose(rng, 1 + number % 5)
        classes = labels(example.intent)
        assert len(classes) == len(FIELDS)
        assert all(0 <= k <= len(v) for k, (_, v) in zip(classes, FIELDS.values(), strict=True))
    one = labels(Intent("paint", objects=(Wanted("cat", count=1),)))
    assert one == labels(Intent("paint", objects=(Wanted("cat"),)))


def test_the_time_shift_keeps_the_ends_and_favours_noise():
    u = torch.linspace(0, 1, 11)
    assert shifted(u)[0] == 0
    assert shifted(u)[-1] == pytest.approx(1)
    assert (shifted(u)[1:-1] > u[1:-1]).all()


def twelve_tokens():
    """What the transformer takes, of one picture."""
    return {
        "hidden_states": torch.randn(1, 12, 128),
        "encoder_hidden_states": torch.randn(1, 64, 384),
        "timestep": torch.tensor([0.7]),
        "img_ids": positions((3, 4)),
        "txt_ids": torch.zeros(64, 4),
    }


def test_the_teachers_change_nothing_about_the_answer():
    torch.manual_seed(1)
    model = build_transformer().eval()
    inputs = twelve_tokens()
    with torch.inference_mode():
        alone = model(**inputs, return_dict=False)[0]
        velocity, told = Taught(model)(**inputs)
    assert torch.equal(alone, velocity)
    assert [one.shape for one in told] == [(1, 12, LESSONS)] * 3


@pytest.mark.parametrize("listens_only", [True, False])
def test_teachers_that_only_listen_teach_the_model_nothing(listens_only):
    model = build_transformer()
    taught = Taught(model)
    taught.listens_only = listens_only
    _, told = taught(**twelve_tokens())
    sum(one.square().mean() for one in told).backward()
    assert all(parameter.grad is not None for parameter in taught.teachers.parameters())
    assert (model.x_embedder.weight.grad is None) == listens_only


def test_coordinates_tell_every_token_of_every_grid_apart():
    for grid in ((1, 1), (4, 4), (12, 12), (6, 15)):
        where = coordinates(grid)
        assert where.shape == (grid[0] * grid[1], COORDINATES)
        assert len({tuple(row) for row in where.tolist()}) == len(where)
        assert where.abs().max() <= 1


def test_contents_say_which_part_of_which_object_a_token_shows():
    scene = Scene("hills", "day", (Thing("car", "blue", 0.25, 0.5),), Backdrop())
    contents = contents_of(scene, (12, 12)).view(12, 12, CONTENTS)
    box = contents[4:10, 0:6]
    assert contents[..., 0].sum() == box[..., 0].sum() == 36
    assert torch.equal(box[0, :, 1], torch.arange(6.0))
    assert torch.equal(box[:, 0, 2], torch.arange(6.0))
    whole, kind, colour = 6, KINDS.index("car"), COLOURS.index("blue")
    assert (box[..., 3:6] == torch.tensor([whole, kind, colour])).all()
    assert (contents[:, 0, 6].diff() >= 0).all()


def test_objects_keep_to_whole_tokens_on_every_grid_of_the_training():
    rng = random.Random(4)
    for shape in SHAPES:
        if min(shape.grid) < 8:
            continue
        scene = sampling.sample_scene(rng)
        found = contents_of(scene, shape.grid)[:, 0].bool()
        assert torch.equal(found, boxes(scene, shape.grid))


def test_every_grid_that_is_served_is_trained_on():
    """Of one that is not, every other picture is wrong."""
    trained = {(shape.task, shape.grid) for shape in SHAPES}
    for width, height in product(range(256, 961, 16), repeat=2):
        grid = Canvas.of(width, height, 64, SIDES).grid
        for task in ("paint", "edit"):
            assert (task, (grid.rows, grid.columns)) in trained
        grid = Canvas.of(width, height, 64, COMPOSITION_SIDES).grid
        assert (grid.rows, grid.columns) in GRIDS_OF_COMPOSITIONS
        grid = Canvas.of(width, height, 64, REFERENCE_SIDES).grid
        assert (grid.rows, grid.columns) in GRIDS_OF_REFERENCES
    for shape in SHAPES:  # what an edit changes has the size of its source
        assert shape.task != "edit" or shape.references == (shape.grid,)
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)
    number_of_images = {len(shape.references) for shape in SHAPES if shape.task == "compose"}
    assert number_of_images == {1, 2, 3, 4, 5}


def test_places_are_rows_columns_and_how_many_of_each():
    assert places((2, 3)).tolist() == [
        [row, column, 2, 3] for row in range(2) for column in range(3)
    ]
    assert max(max(shape.grid) for shape in SHAPES) < MOST


@pytest.mark.parametrize("tokens", [1, 7, 130])
def test_attention_is_that_of_torch_forth_and_back(tokens):
    ours = [torch.randn(2, tokens, 4, 16, requires_grad=True) for _ in range(3)]
    theirs = [part.detach().clone().requires_grad_() for part in ours]
    weight = torch.randn(2, tokens, 4, 16)
    mine = attention(*ours)
    query, key, value = (part.transpose(1, 2) for part in theirs)
    other = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)
    assert torch.allclose(mine, other, atol=1e-6)
    (mine * weight).sum().backward()
    (other * weight).sum().backward()
    for one, two in zip(ours, theirs, strict=True):
        assert torch.allclose(one.grad, two.grad, atol=1e-5)


def meant(noise):
    """(B, lots): the quantiles that noise stands for, read back in double precision."""
    several = noise[:, :, FIRST:LAST].unflatten(2, (len(NAMES), 4))
    drawn = several.double().sum(dim=(1, 3)) / (4 * noise.shape[1]) ** 0.5
    return (1 + torch.erf(drawn / 2**0.5)) / 2


@pytest.mark.parametrize("tokens", [16, 144])
def test_tied_noise_means_its_lots_and_is_as_normal_as_before(tokens):
    rng, generator = random.Random(3), torch.Generator().manual_seed(3)
    lots = torch.tensor([lots_of(sampling.sample_paint(rng)) for _ in range(2000)])
    plain = torch.randn(2000, tokens, 128, generator=generator)
    tied = tie(plain, lots, generator)
    found = meant(tied)
    assert ((found > lots[..., 0] - 2e-3) & (found < lots[..., 1] + 2e-3)).all()
    # over all examples every quantile comes as often, so that any seed's noise is as usual
    for tenth in range(10):
        share = ((found >= tenth / 10) & (found < (tenth + 1) / 10)).float().mean(0)
        assert (share - 0.1).abs().max() < 0.035
    # nothing but one direction a lot was touched
    change = (tied - plain)[:, :, FIRST:LAST].unflatten(2, (len(NAMES), 4))
    assert torch.allclose(change, change[:, :1, :, :1].expand_as(change), atol=1e-5)
    for untouched in (slice(FIRST), slice(LAST, None)):
        assert torch.equal(tied[:, :, untouched], plain[:, :, untouched])


def test_lots_say_what_no_caption_and_no_image_does():
    scene = Scene("city", "day", (), Backdrop(land=1, sky=0, warmth=0.5))
    backdrop = [(1 / 2, 1.0), (0.0, 1 / 3), (0.75, 0.75)]
    assert lots_of(Example((), scene, Intent("paint", "city"))) == backdrop
    assert lots_of(Example((scene,), scene, Intent("compose", time_image=1))) == backdrop
    nothing = [FREE] * len(NAMES)
    assert lots_of(Example((scene,), scene, Intent("compose", scene_image=1))) == nothing
    assert lots_of(Example((scene,), scene, Intent("time", time="night"))) == nothing


def test_what_is_left_unsaid_follows_from_the_land():
    rng = random.Random(8)
    left_out = {"scene": set(), "colour": set(), "position": set()}
    for _ in range(3000):
        example = sampling.sample_paint(rng)
        intent, target = example.intent, example.target
        land = target.backdrop.land
        if intent.scene is None:
            assert target.scene == sampling.USUAL_SCENES[target.things[0].kind][land]
            left_out["scene"].add(target.scene)
        for wanted, thing in zip(intent.objects, target.things, strict=False):
            if wanted.colour is None:
                assert thing.colour == sampling.USUAL_COLOURS[thing.kind][land]
                left_out["colour"].add((thing.kind, land))
            if wanted.position is None and len(target.things) == 1:
                assert thing.x == 0.5
                left_out["position"].add(thing.kind)
    assert len(left_out["scene"]) >= 9
    assert len(left_out["colour"]) == 2 * len(KINDS)
    assert len(left_out["position"]) == len(KINDS)


def test_tokens_and_cells_are_the_engines(codec, camera):
    scene = sampling.sample_scene(random.Random(8))
    tokens = camera.tokens(scene, (2, 3))
    cells = to_cells(tokens[None], Grid(2, 3))
    assert torch.equal(to_tokens(cells)[0], tokens)


def test_a_style_is_gone_on_with_where_it_was_left(tmp_path):
    torch.manual_seed(4)
    first, second = build_transformer(), build_transformer()
    second.load_state_dict(first.state_dict())
    targets = adapt(first, "dark", 4)
    for name, parameter in first.named_parameters():
        if "lora_B" in name:  # zero at the start, when a style does nothing yet
            parameter.data.normal_(std=0.05)
    write(first, "dark", targets, tmp_path)
    adapt(second, "dark", 4)
    read(second, "dark", tmp_path / "pytorch_lora_weights.safetensors")
    before, after = (get_peft_model_state_dict(m, adapter_name="dark") for m in (first, second))
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert torch.equal(after[key], tensor.bfloat16().float()), key


def test_an_adapter_of_another_model_is_refused(tmp_path):
    file = tmp_path / "other.safetensors"
    save_file({"transformer.unknown.lora_A.weight": torch.zeros(16, 4)}, file)
    model = build_transformer()
    adapt(model, "dark", 4)
    with pytest.raises(StoreError, match="lacks"):
        read(model, "dark", file)


def test_weights_are_taken_farther_along_the_way_that_training_took(tmp_path):
    (tmp_path / "transformer").mkdir()
    file = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])}, file)
    trained = {"a": torch.tensor([2.0, 2.0]), "b": torch.tensor([1.0])}
    found = farther(tmp_path, trained, 1.5)
    assert found["a"].tolist() == [2.5, 2.0]
    assert found["b"].tolist() == [0.0]
