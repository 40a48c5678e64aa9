from __future__ import annotations

import pytest

from iris.api.schemas import MAX_SEED, EditBody, GenerateBody, build_job, draw_seed, in_style
from iris.catalog import Catalog, Style
from iris.jobs import EditJob, GenerateJob, Pixels

BASE = {"model": "epithre-iris", "prompt": " a fox "}
PIXELS = Pixels(16, 16, bytes(768))


def test_a_generation_becomes_a_plain_job() -> None:
    fields = GenerateBody.model_validate(BASE | {"lora": "dark", "guidance_scale": 2})
    job = build_job(
        fields,
        request_id="req_1",
        owner="key_1",
        size_px=(64, 32),
        seed=5,
        prompt="ein Fuchs, a fox",
        images=(),
        deadline_s=9.5,
    )
    assert job == GenerateJob(
        request_id="req_1",
        owner="key_1",
        prompt="ein Fuchs, a fox",
        width_px=64,
        height_px=32,
        num_inference_steps=4,
        seed=5,
        guidance_scale=2.0,
        lora="dark",
        lora_strength=0.6,
        deadline_s=9.5,
    )
    assert type(job.guidance_scale) is float


@pytest.mark.parametrize(
    ("change", "strength"),
    [({"image": "x"}, 0.75), ({"image": "x", "strength": 0}, 0.0), ({"images": ["x"]}, None)],
)
def test_an_edit_has_a_strength_only_with_a_single_source(
    change: dict[str, object], strength: float | None
) -> None:
    fields = EditBody.model_validate(BASE | change)
    for state in (fields, fields.without_sources()):
        job = build_job(
            state,
            request_id="r",
            owner="k",
            size_px=(16, 16),
            seed=0,
            prompt="a fox",
            images=(PIXELS,),
            deadline_s=1,
        )
        assert isinstance(job, EditJob)
        assert (job.strength, job.images) == (strength, (PIXELS,))


def test_letting_the_sources_go_leaves_nothing_of_them() -> None:
    for change in ({"image": "x" * 100}, {"images": ["x" * 100, "y" * 100]}):
        emptied = EditBody.model_validate(BASE | change).without_sources()
        assert "x" * 100 not in repr(emptied)
        assert "y" * 100 not in repr(emptied)


def test_a_given_seed_is_kept_and_a_drawn_one_covers_the_whole_range() -> None:
    assert draw_seed(GenerateBody.model_validate(BASE | {"seed": 0})) == 0
    fields = GenerateBody.model_validate(BASE)
    drawn = [draw_seed(fields) for _ in range(200)]
    assert all(0 <= seed <= MAX_SEED for seed in drawn)
    assert max(drawn) > 2**62  # the odds of 200 draws in the lower half are 2**-200
    assert len(set(drawn)) == 200


def test_a_mask_is_let_go_of_with_the_sources() -> None:
    fields = EditBody.model_validate(BASE | {"image": "x", "mask": "m" * 100})
    assert "m" * 100 not in repr(fields.without_sources())


@pytest.mark.parametrize(
    ("change", "strength"),
    [
        ({}, 0.6),
        ({"lora": "ink"}, 0.9),
        ({"lora": "ink", "lora_strength": 0.2}, 0.2),
        ({"lora": "ink", "lora_strength": 0.6}, 0.6),
    ],
)
def test_a_style_has_its_own_strength_where_none_is_given(
    change: dict[str, object], strength: float
) -> None:
    catalog = Catalog("tiny", "1", "d", (Style("ink", "2", "d", default_strength=0.9),))
    fields = in_style(GenerateBody.model_validate(BASE | change), catalog)
    assert fields.lora_strength == strength
    assert fields.prompt == "a fox"


@pytest.mark.parametrize(
    ("prompt", "read"),
    [("a fox", "inkwash, a fox"), ("a fox in InkWash", "a fox in InkWash")],
)
def test_the_words_of_a_style_stand_before_a_prompt_that_lacks_them(prompt: str, read: str) -> None:
    catalog = Catalog("tiny", "1", "d", (Style("ink", "2", "d", trigger="inkwash"),))
    assert catalog.prompt("ink", prompt) == read
    assert catalog.prompt(None, prompt) == prompt
