"""Work is done, then recorded, then replayed; and a recorded pass is the pass, whatever comes."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from iris.engine.cache import Cache
from iris.engine.denoiser import Denoiser
from iris.engine.loader import load_components
from iris.engine.lora import install_styles
from iris.engine.memory import with_room
from iris.engine.recordings import Recordings
from tests.engine.conftest import a_gradient, a_job, stepped
from tests.engine.test_company import jobs


class Rerun:
    """In the place of a recorder, on a CPU: a replay sees new inputs, and nothing else anew."""

    def __init__(self):
        self.recorded = 0

    def record(self, work, inputs):
        self.recorded += 1
        kept = [part.clone() for part in inputs]

        def replay(*inputs):
            for mine, part in zip(kept, inputs, strict=True):
                mine.copy_(part)
            return work(*kept)

        replay.kept_bytes = sum(part.nbytes for part in kept)
        return replay


def doubled():
    return lambda x: 2 * x


def test_work_is_done_then_recorded_then_replayed():
    recorder = Rerun()
    recordings = Recordings("denoise", recorder)
    begun = []
    for number, recorded in ((1.0, 0), (2.0, 1), (3.0, 1)):
        x = torch.tensor([number])
        answer = recordings.run("a", lambda: begun.append(1) or doubled(), [x])
        assert float(answer) == 2 * number
        assert recorder.recorded == recorded
    assert len(begun) == 1


def test_those_last_asked_for_are_kept():
    recorder = Rerun()
    recordings = Recordings("denoise", recorder, most=2)
    x = [torch.ones(1)]
    for key in ("a", "a", "b", "a", "c", "a", "b"):
        recordings.run(key, doubled, x)
    assert recorder.recorded == 1  # of a; b was given up for c
    recordings.forget(lambda key: key == "a")
    for _ in range(2):
        recordings.run("a", doubled, x)
    assert recorder.recorded == 2


def test_what_recordings_keep_is_counted():
    def kept():
        return REGISTRY.get_sample_value("iris_engine_recording_bytes", {"stage": "denoise"})

    recordings = Recordings("denoise", Rerun(), most=2)
    for number, key in enumerate("aabbcc"):
        recordings.run(key, doubled, [torch.ones(10)])
        assert kept() == (0, 40, 40, 80, 40, 80)[number]
    recordings.forget()
    assert kept() == 0


def test_work_that_cannot_be_recorded_is_done_each_time_and_said_once(caplog):
    class Refuses:
        def record(self, work, inputs):
            raise RuntimeError("waits for the device")

    recordings = Recordings("denoise", Refuses())
    for _ in range(4):
        assert float(recordings.run("a", doubled, [torch.ones(1)])) == 2
    assert caplog.text.count("waits for the device") == 1


def test_work_that_failed_at_first_is_done_before_it_is_recorded():
    """What it needs for itself is made the first time, and could not be in a recording."""
    recorder = Rerun()
    recordings = Recordings("denoise", recorder)
    fails = iter([True, False, False])

    def begin():
        def work(x):
            if next(fails):
                raise ValueError("once")
            return 2 * x

        return work

    with pytest.raises(ValueError, match="once"):
        recordings.run("a", begin, [torch.ones(1)])
    assert float(recordings.run("a", begin, [torch.ones(1)])) == 2
    assert recorder.recorded == 0


def test_a_mistake_is_raised():
    class Fails:
        def record(self, work, inputs):
            raise ValueError("a mistake")

    recordings = Recordings("denoise", Fails())
    recordings.run("a", doubled, [torch.ones(1)])
    with pytest.raises(ValueError, match="a mistake"):
        recordings.run("a", doubled, [torch.ones(1)])


def test_where_there_is_no_memory_to_record_in_none_is_kept_and_none_tried_again(caplog):
    class Full(Rerun):
        is_full = False

        def record(self, work, inputs):
            if self.is_full:
                self.tried += 1
                raise torch.OutOfMemoryError("full")
            return super().record(work, inputs)

    recorder = Full()
    recorder.tried = 0
    recordings = Recordings("denoise", recorder)
    for _ in range(2):
        recordings.run("a", doubled, [torch.ones(1)])
    recorder.is_full = True
    for key in ("b", "b", "b", "a", "a", "b"):
        assert float(recordings.run(key, doubled, [torch.ones(1)])) == 2
    assert recorder.tried == 1
    assert recorder.recorded == 1
    assert all(one.replay is None for one in recordings._kept.values())
    assert caplog.text.count("no memory to record") == 1


@pytest.fixture(scope="module")
def recorded(load):
    """A model whose passes over one row are recorded, and whose products take styles along."""
    model = load("fine")
    denoiser = Denoiser(*model)
    denoiser._transformer.dress_in_products()
    denoiser._transformer.record_in(Recordings("denoise", Rerun(), most=5))
    return model, denoiser


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(alone=st.lists(jobs(), min_size=2, max_size=4))
def test_pictures_one_after_another_are_those_of_passes_that_are_not_recorded(
    recorded, fine, alone
):
    """Whatever was recorded before: another picture, prompt, time, style or strength."""
    model, denoiser = recorded
    for job, _ in alone:
        [row] = stepped(model, denoiser, [job])
        [expected] = stepped(fine, Denoiser(*fine), [job])
        assert torch.allclose(row.latents, expected.latents, rtol=1e-3, atol=1e-4)


def test_as_many_tokens_are_another_pass_where_more_of_them_are_references(recorded, fine):
    model, denoiser = recorded
    large, small = (96, 64), (64, 32)  # of both: 32 tokens
    for _ in range(2):
        for (width, height), source in ((large, small), (small, large)):
            job = a_job(width_px=width, height_px=height, images=(a_gradient(*source),))
            [row] = stepped(model, denoiser, [job])
            [expected] = stepped(fine, Denoiser(*fine), [job])
            assert torch.allclose(row.latents, expected.latents, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("lora", [None, "dark"])
def test_a_picture_alone_is_recorded_at_its_second_step_and_company_is_not(load, lora):
    model = load("fine")
    denoiser = Denoiser(*model)
    denoiser._transformer.dress_in_products()
    recorder = Rerun()
    denoiser._transformer.record_in(Recordings("denoise", recorder))
    stepped(model, denoiser, [a_job(lora=lora, num_inference_steps=1)])
    assert recorder.recorded == 0
    stepped(model, denoiser, [a_job(lora=lora, num_inference_steps=3, seed=2)])
    assert recorder.recorded == 1
    stepped(model, denoiser, [a_job(seed=3), a_job(seed=4)])
    assert recorder.recorded == 1


def test_recordings_are_given_up_where_anybody_lacks_memory():
    recorder = Rerun()
    recordings = Recordings("denoise", recorder)
    for _ in range(2):
        recordings.run("a", doubled, [torch.ones(1)])
    tried = []

    def decode():
        tried.append(len(recordings._kept))
        if len(tried) == 1:
            raise torch.OutOfMemoryError("full")
        return "a picture"

    assert with_room(decode, Cache(0)) == "a picture"
    assert tried == [1, 0]
    for _ in range(2):  # and come again
        recordings.run("a", doubled, [torch.ones(1)])
    assert recorder.recorded == 2


@pytest.mark.gpu
def test_on_a_gpu_what_is_replayed_is_what_is_done_call_by_call(folders):
    folder = folders["fine"]
    components = load_components(folder / "weights", torch.device("cuda"), torch.bfloat16)
    paths = {style: folder / "styles" / style for style in ("dark", "anime")}
    model = components, install_styles(components.transformer, paths)
    denoiser = Denoiser(*model, compiled=True)
    denoiser.warm()
    recordings = denoiser._transformer._recordings
    company = [
        a_job(),
        a_job(width_px=512, height_px=512, seed=2, num_inference_steps=4),
        a_job(lora="dark", num_inference_steps=4, seed=3),
        a_job(lora="dark", lora_strength=1.2, num_inference_steps=4, seed=3),
        a_job(lora="anime", num_inference_steps=4, seed=3),
        a_job(prompt="something else", num_inference_steps=4, seed=9),
        # as many tokens each, and not as many of them references
        a_job(width_px=96, images=(a_gradient(64, 32),), num_inference_steps=4),
        a_job(height_px=32, images=(a_gradient(96, 64),), num_inference_steps=4),
    ]
    replayed = [stepped(model, denoiser, [job])[0].latents for job in company]
    assert sum(one.replay is not None for one in recordings._kept.values()) >= 5
    denoiser._transformer._recordings = None
    for job, latents in zip(company, replayed, strict=True):
        assert torch.equal(stepped(model, denoiser, [job])[0].latents, latents)
