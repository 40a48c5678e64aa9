"""What the embedded model promises: its pictures show what the prompt says."""

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from evaluation.generate import Model, Task
from evaluation.measures import difference, edge_density, lightness, luma, outside_difference
from evaluation.view import view
from iris.engine.decoder import PictureDecoder
from iris.engine.loader import load_components
from iris.engine.pointwise import Pointwise
from tests.models.conftest import ROOT
from world.spec import Backdrop, Scene, Thing

SIDE = 768
MAX_BYTES = 30 * 1024 * 1024
NOTHING = Scene("studio", "day", ())


def draw(model, prompt, seed=1, side=SIDE, **more):
    """One picture, (height, width, 3) uint8."""
    [picture] = model.make([Task(prompt, NOTHING, side, side, seed, **more)])
    return picture


def a_scene(scene, time, kind, colour, x=0.5, share=0.36):
    return Scene(scene, time, (Thing(kind, colour, x, share),), Backdrop())


def share_right(answers):
    answers = list(answers)
    return sum(answers) / len(answers)


PROMPTS = {
    # English, Indonesian: what must be seen
    ("a red house on the beach, sunset", "rumah merah di pantai, matahari terbenam"): {
        "scene": "beach",
        "time": "sunset",
        "kind": "house",
        "colour": "red",
    },
    ("a blue car in the city at night", "mobil biru di kota pada malam hari"): {
        "scene": "city",
        "time": "night",
        "kind": "car",
        "colour": "blue",
    },
    (
        "a yellow balloon over the mountains, sunny day",
        "balon udara kuning di pegunungan, siang hari",
    ): {
        "scene": "mountains",
        "time": "day",
        "kind": "balloon",
        "colour": "yellow",
    },
    ("a green tree in the desert in the snow", "pohon hijau di gurun saat turun salju"): {
        "scene": "desert",
        "time": "snow",
        "kind": "tree",
        "colour": "green",
    },
    ("an orange cat in a studio", "kucing oranye di studio foto"): {
        "scene": "studio",
        "kind": "cat",
        "colour": "orange",
    },
    ("a white boat on the sea in the rain", "perahu putih di laut saat hujan"): {
        "scene": "sea",
        "time": "rain",
        "kind": "boat",
        "colour": "white",
    },
}


@pytest.mark.parametrize("language", ["english", "indonesian"])
def test_a_picture_shows_what_the_prompt_says(model, probe, language):
    answers = []
    for prompts, wanted in PROMPTS.items():
        prompt = prompts[language == "indonesian"]
        [seen] = probe([draw(model, prompt)])
        answers += [getattr(seen, name) == value for name, value in wanted.items()]
    assert share_right(answers) >= 0.85


def test_both_languages_are_drawn_alike(model, probe):
    same = []
    for english, indonesian in PROMPTS:
        one, other = probe([draw(model, english), draw(model, indonesian)])
        same += [one.scene == other.scene, one.time == other.time, one.colour == other.colour]
    assert share_right(same) >= 0.85


def test_red_is_red_and_night_is_dark(model):
    day = draw(model, "a red car in the desert, sunny day")
    night = draw(model, "a red car in the desert at night")
    assert luma(night) < 0.6 * luma(day)
    middle = day[SIDE // 2 : SIDE * 7 // 8, SIDE // 4 : SIDE * 3 // 4].astype(float)
    red = (middle[..., 0] > 150) & (middle[..., 1] < 80) & (middle[..., 2] < 80)
    blue = draw(model, "a blue car in the desert, sunny day")
    middle = blue[SIDE // 2 : SIDE * 7 // 8, SIDE // 4 : SIDE * 3 // 4].astype(float)
    red_of_blue = (middle[..., 0] > 150) & (middle[..., 1] < 80) & (middle[..., 2] < 80)
    assert red.mean() > 0.05 > red_of_blue.mean()


def test_the_side_that_is_named_is_the_side(model, probe):
    seen = probe([draw(model, f"a red house on the {side}, hills") for side in ("left", "right")])
    assert [one.position for one in seen] == ["left", "right"]


@pytest.mark.parametrize(
    "prompt",
    ["a red cat", "a blue bottle in the forest, day", "a samurai", "perahu biru", "rumah di kota"],
)
def test_what_is_left_unsaid_is_still_one_thing_in_the_middle(model, probe, prompt):
    seen = probe([draw(model, prompt, seed) for seed in range(1, 9)])
    assert share_right((one.count, one.position) == (1, "centre") for one in seen) >= 0.85


@pytest.mark.parametrize("prompt", ["a house on the beach", "a red cat", "a samurai"])
def test_a_seed_is_a_picture_and_another_seed_another(model, prompt):
    """Two seeds may agree in land and sky, one pair in six, and then differ in the light alone."""
    pictures = [draw(model, prompt, seed=seed) for seed in range(1, 9)]
    assert np.array_equal(pictures[4], draw(model, prompt, seed=5))
    apart = [difference(one, other) for one, other in combinations(pictures, 2)]
    assert share_right(distance > 0.02 for distance in apart) >= 0.9
    assert min(apart) > 0.015


@pytest.mark.parametrize(
    ("width", "height"),
    [(256, 256), (448, 448), (512, 512), (960, 960), (512, 768), (960, 640), (352, 704)],
)
def test_every_size_shows_the_prompt(model, probe, width, height):
    prompt = "a yellow house in the city at night"
    pictures = list(model.make([Task(prompt, NOTHING, width, height, seed) for seed in (1, 2, 3)]))
    assert {picture.shape for picture in pictures} == {(height, width, 3)}
    for seen in probe(pictures):
        assert (seen.scene, seen.time, seen.colour) == ("city", "night", "yellow")


def test_ordinary_prompts_with_unknown_words_still_give_a_picture(model, probe):
    prompt = "my grandmother's wonderful cottage near the shore, golden hour, trending, 4k"
    [seen] = probe([draw(model, prompt)])
    assert (seen.scene, seen.time) == ("beach", "sunset")


def edit(model, source, prompt, strength=0.75, side=704, **more):
    task = Task(prompt, source, side, side, 1, sources=(source,), strength=strength, **more)
    [picture] = model.make([task])
    return picture


@pytest.mark.parametrize(
    ("prompt", "time"),
    [
        ("change the sky to dramatic stormy clouds with lightning", "storm"),
        ("change background to sunset", "sunset"),
        ("make it night", "night"),
        ("ubah langit menjadi malam", "night"),
    ],
)
def test_the_sky_changes_and_the_rest_stays(model, probe, prompt, time):
    source = a_scene("hills", "day", "house", "red")
    picture = edit(model, source, prompt, strength=0.7)
    [seen] = probe([picture])
    assert (seen.time, seen.scene, seen.colour) == (time, "hills", "red")


@pytest.mark.parametrize(
    ("prompt", "changed"),
    [
        ("make it night", {"time": "night"}),
        ("change background to sunset", {"time": "sunset"}),
        ("put it in the desert", {"scene": "desert"}),
        ("make the car blue", {"colour": "blue"}),
    ],
)
def test_the_models_own_picture_is_edited_as_sharply_though_it_is_larger(
    model, probe, prompt, changed
):
    """768x768 comes in at 704x704, and is painted again at the scale that it was painted at."""
    first = Task("a red car in the city, sunny day", NOTHING, 768, 768, 3)
    wanted = {"scene": "city", "time": "day", "kind": "car", "colour": "red", "count": 1} | changed
    task = Task(prompt, NOTHING, 704, 704, 1, first=first, strength=0.75)
    [picture] = model.make([task])
    [seen] = probe([picture])
    assert {name: getattr(seen, name) for name in wanted} == wanted
    target = a_scene(wanted["scene"], wanted["time"], "car", wanted["colour"])
    assert edge_density(picture) > 0.6 * edge_density(view(target, 704, 704))


def test_a_change_of_colour_stays_inside_the_object(model, probe):
    source = a_scene("desert", "day", "car", "red")
    picture = edit(model, source, "make the car blue")
    [seen] = probe([picture])
    assert (seen.colour, seen.scene, seen.time) == ("blue", "desert", "day")
    before = view(source, 704, 704)
    assert outside_difference(before, picture, (0.28, 0.4, 0.72, 0.9)) < 0.04


def test_a_higher_strength_changes_more(model):
    source = a_scene("hills", "day", "tree", "green")
    before = view(source, 704, 704)
    changes = [
        difference(before, edit(model, source, "make it night", strength))
        for strength in (0.2, 0.5, 1.0)
    ]
    assert changes == sorted(changes)
    assert changes[2] > 2 * changes[0]


def compose(model, prompt, *sources):
    task = Task(prompt, NOTHING, 704, 704, 1, sources=sources, source_size=(512, 512))
    [picture] = model.make([task])
    return picture


def test_the_object_of_one_image_stands_in_the_scene_of_another_in_either_order(model, probe):
    prompt = "the product from image {} in the scene of image {}"
    answers = []
    for kind, colour, scene, time in (
        ("house", "red", "desert", "night"),
        ("cat", "orange", "beach", "sunset"),
        ("bottle", "blue", "forest", "day"),
    ):
        product = a_scene("studio", "day", kind, colour, share=0.5)
        place = Scene(scene, time, (), Backdrop())
        forth = compose(model, prompt.format(1, 2), product, place)
        back = compose(model, prompt.format(2, 1), place, product)
        for seen in probe([forth, back]):
            answers += [seen.kind == kind, seen.colour == colour]
            answers += [seen.scene == scene, seen.time == time]
    assert share_right(answers) >= 0.85


def test_the_documented_composition_works(model, probe):
    prompt = (
        "the product from image 1, displayed in the studio setting from image 2, "
        "in the photography style of image 3"
    )
    product = a_scene("hills", "day", "house", "blue", share=0.5)
    studio = Scene("studio", "day", (), Backdrop())
    style = a_scene("beach", "sunset", "boat", "white")
    [seen] = probe([compose(model, prompt, product, studio, style)])
    assert (seen.scene, seen.time, seen.colour) == ("studio", "sunset", "blue")


def test_the_documented_pictures_show_what_they_say(model, probe):
    beach = draw(model, "a serene Indonesian beach at sunset, photorealistic, golden hour")
    grove = draw(
        model,
        "a young samurai in a bamboo forest, cherry blossoms falling",
        style="anime",
        style_strength=0.8,
    )
    first, second = probe([beach, grove])
    assert (first.scene, first.time) == ("beach", "sunset")
    assert (second.scene, second.time, second.kind) == ("bamboo", "blossoms", "samurai")


def styled(model, style, strength):
    return draw(model, "a red house in the hills, day", style=style, style_strength=strength)


def test_dark_is_darker_the_stronger_and_never_black(model, probe):
    pictures = [styled(model, "dark", strength) for strength in (0.0, 0.5, 1.0, 1.5)]
    lumas = [luma(picture) for picture in pictures]
    assert lumas == sorted(lumas, reverse=True)
    assert lumas[2] < 0.8 * lumas[0]
    assert lumas[3] > 0.05
    [seen] = probe([pictures[2]])
    assert (seen.scene, seen.colour) == ("hills", "red")


def test_anime_has_outlines_and_is_lighter(model):
    plain, drawn = styled(model, "anime", 0.0), styled(model, "anime", 0.8)
    assert edge_density(drawn) > 1.5 * edge_density(plain)
    assert lightness(drawn) > lightness(plain)


def test_guidance_and_more_steps_keep_to_the_prompt(model, probe):
    prompt = "a red house on the beach, sunset"
    pictures = [draw(model, prompt, guidance=2.0), draw(model, prompt, steps=8)]
    for seen in probe(pictures):
        assert (seen.scene, seen.time, seen.colour) == ("beach", "sunset", "red")


# What lies on disk.


def test_the_model_carries_its_own_numbers(pipeline, folder):
    numbers = json.loads((folder / "weights" / "iris.json").read_text())
    levels = len(pipeline.vae.config.block_out_channels)
    assert numbers["name"] == "iris-mini"
    assert numbers["pixels_per_token"] == 2 * 2 ** (levels - 1) == 64
    layers = numbers["text_encoder_out_layers"]
    assert max(layers) <= pipeline.text_encoder.config.num_hidden_layers
    joint = len(layers) * pipeline.text_encoder.config.hidden_size
    assert pipeline.transformer.config.joint_attention_dim == joint
    assert pipeline.transformer.config.in_channels == 4 * pipeline.vae.config.latent_channels


@torch.inference_mode()
def test_in_float32_the_engine_decodes_as_the_stock_pipeline_does(pipeline, folder):
    """Its norms have two channels far from all others, and magnify what is lost in them."""
    components = load_components(folder / "weights", torch.device("cpu"), torch.float32)
    given = torch.randn(1, 32, 24, 20, generator=torch.Generator().manual_seed(3))
    ours = PictureDecoder(components.vae, Pointwise(compiled=False))(given)
    theirs = pipeline.vae.decode(given, return_dict=False)[0]
    assert float((ours - theirs).abs().max()) < 0.1 / 127.5  # a tenth of a level


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_latents_are_the_same_in_company_on_any_number_of_threads(folder, threads):
    """Widths and heights are the model's own here: where products and threads' shares round."""
    before = torch.get_num_threads()
    try:
        model = Model(folder, threads=threads, dtype="float32")
        tasks = [
            Task("a red boat", NOTHING, SIDE, SIDE, 1, steps=2),
            Task("a blue car at night", NOTHING, SIDE, 512, 2, steps=2, style="anime",
                 style_strength=0.6),
            Task("make it night", NOTHING, 512, 512, 3, steps=2, strength=0.5,
                 sources=(a_scene("sea", "day", "boat", "red"),)),
            Task("a green tree", NOTHING, 256, 256, 4, steps=2, guidance=2.0),
        ]  # fmt: skip
        alone = [model.latents([task])[0] for task in tasks]
        for company in (tasks, tasks[::-1], tasks[1:3]):
            for task, found in zip(company, model.latents(company), strict=True):
                assert torch.equal(found, alone[tasks.index(task)])
    finally:
        torch.set_num_threads(before)


def test_bfloat16_is_within_36_db_of_float32(folder):
    """What CPUs that multiply bfloat16 serve: pictures in a style and edits."""
    tasks = [
        Task(
            "a blue car in the city at night", NOTHING, SIDE, SIDE, 2, style="dark",
            style_strength=0.8,
        ),
        Task(
            "make it night", NOTHING, 512, 512, 4, sources=(a_scene("sea", "day", "boat", "red"),),
            strength=0.75,
        ),
    ]  # fmt: skip
    served, exact = (
        list(Model(folder, threads=1, dtype=dtype).make(tasks)) for dtype in ("bfloat16", "float32")
    )
    for one, other in zip(served, exact, strict=True):
        assert not np.array_equal(one, other)
        squares = np.square(one.astype(float) - other.astype(float))
        assert 10 * np.log10(255**2 / squares.mean()) >= 36


def test_the_model_is_small_and_holds_safetensors_only(folder):
    files = [
        path
        for part in ("weights", "styles")
        for path in (folder / part).glob("**/*")
        if path.is_file()
    ]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja"}
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES


def test_the_chat_template_keeps_the_text_and_ends_in_the_registers(pipeline):
    text = "  seekor kucing {merah}\n<b>di</b> 'meja' \\n {{ 7*7 }} "
    turn = [{"role": "user", "content": text}]
    bare = f"<|im_start|>{text}<|im_end|>"
    write = pipeline.tokenizer.apply_chat_template
    assert write(turn, tokenize=False) == bare
    asked = write(turn, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert asked == bare + "<|place|><|change|><|first|><|second|>"


def test_padding_is_on_the_right_and_masked(pipeline):
    tokens = pipeline.tokenizer("a cat", padding="max_length", max_length=16, truncation=True)
    real = sum(tokens["attention_mask"])
    assert 0 < real < 16
    assert tokens["attention_mask"] == [1] * real + [0] * (16 - real)
    assert set(tokens["input_ids"][real:]) == {pipeline.tokenizer.pad_token_id}


def test_usual_words_take_little_more_than_a_token_each(pipeline):
    for text in (" a red cat on the beach at night", " seekor kucing hitam di pantai"):
        assert len(pipeline.tokenizer(text)["input_ids"]) <= 1.25 * len(text.split())


TOKENIZER = AutoTokenizer.from_pretrained(ROOT / "weights" / "tokenizer")


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_unicode_survives_the_tokenizer(text):
    normal = TOKENIZER.backend_tokenizer.normalizer.normalize_str(text)
    tokens = TOKENIZER(text)["input_ids"]
    assert max(tokens, default=0) < len(TOKENIZER)
    assert TOKENIZER.decode(tokens, clean_up_tokenization_spaces=False) == normal


@pytest.mark.parametrize("style", ["dark", "anime"])
def test_the_stock_pipeline_loads_a_style_into_every_layer_of_the_blocks(pipeline, folder, style):
    pipeline.load_lora_weights(folder / "styles" / style, use_safetensors=True, adapter_name=style)
    try:
        adapted = [
            module
            for module in pipeline.transformer.modules()
            if style in getattr(module, "lora_B", {})
        ]
        assert all(module.lora_B[style].weight.abs().max() > 0 for module in adapted)
    finally:
        pipeline.unload_lora_weights()
    doubles = len(pipeline.transformer.transformer_blocks)
    singles = len(pipeline.transformer.single_transformer_blocks)
    assert len(adapted) == 12 * doubles + 2 * singles


def test_a_picture_survives_the_autoencoder(model):
    picture = view(a_scene("hills", "day", "house", "red"), 512, 512)
    again = model.round_trip(picture)
    error = np.square(picture.astype(float) - again.astype(float)).mean()
    assert 10 * np.log10(255**2 / error) > 24
