import threading
import time
from concurrent.futures import wait

import psutil
import pytest
import torch

from iris.engine.engine import Engine
from iris.jobs import Failure, Picture, Pixels, Refusal, Ticket
from tests.engine.conftest import a_gradient, a_job


@pytest.fixture
def engine(make_engine):
    return make_engine()


def admit(engine, *jobs):
    tickets = engine.admit(jobs)
    assert all(isinstance(ticket, Ticket) for ticket in tickets)
    return [ticket.ticket_id for ticket in tickets]


def picture(engine, job):
    (ticket,) = admit(engine, job)
    outcome = engine.collect(ticket).result(30)
    assert isinstance(outcome, Picture), outcome
    return outcome


class Brake:
    """Holds the step loop inside a step until it is released."""

    def __init__(self, engine, monkeypatch):
        self.entered, self.released = threading.Event(), threading.Event()
        self.rows = []
        step = engine._denoiser.step

        def held(rows):
            self.rows += [row.job.request_id for row in rows]
            self.entered.set()
            assert self.released.wait(30)
            step(rows)

        monkeypatch.setattr(engine._denoiser, "step", held)


@pytest.fixture
def brake(engine, monkeypatch):
    brake = Brake(engine, monkeypatch)
    yield brake
    brake.released.set()


def test_a_picture_has_the_size_and_seed_that_were_asked_for(engine):
    made = picture(engine, a_job(width_px=80, height_px=48, seed=2**63 - 1))
    assert (made.pixels.width_px, made.pixels.height_px) == (80, 48)
    assert len(made.pixels.rgb) == 80 * 48 * 3
    assert made.seed == 2**63 - 1
    assert made.inference_s > 0
    assert made.queue_s >= 0


def test_equal_jobs_give_equal_bytes_and_other_seeds_other_pictures(engine):
    one, two = picture(engine, a_job(seed=5)), picture(engine, a_job(seed=5))
    assert one.pixels == two.pixels
    assert picture(engine, a_job(seed=6)).pixels != one.pixels


def test_a_picture_does_not_depend_on_who_else_runs(engine):
    jobs = [
        a_job(seed=1),
        a_job(seed=2, lora="dark", lora_strength=1.2, num_inference_steps=5),
        a_job(seed=3, width_px=96, guidance_scale=3.0, prompt="a blue cup"),
        a_job(seed=4, images=(a_gradient(64, 64),), strength=0.5, lora="anime"),
        a_job(seed=5, images=(a_gradient(64, 96), a_gradient(96, 64, 1)), num_inference_steps=3),
    ]
    alone = [picture(engine, job).pixels for job in jobs]
    for order in (jobs, jobs[::-1]):
        tickets = admit(engine, *order)
        together = [engine.collect(ticket).result(30).pixels for ticket in tickets]
        assert together == (alone if order is jobs else alone[::-1])


def test_strength_zero_is_the_source_itself(engine):
    source = a_gradient(64, 48)
    job = a_job(width_px=64, height_px=48, images=(source,), strength=0.0, seed=9)
    assert picture(engine, job).pixels == source


def test_the_difference_from_the_source_grows_with_strength(engine):
    source = a_gradient(128, 128)
    before = levels(source)
    distances = []
    for strength in (0.0, 0.1, 0.3, 0.5, 0.75, 1.0):
        job = a_job(
            width_px=128, height_px=128, images=(source,), strength=strength,
            num_inference_steps=8,
        )  # fmt: skip
        after = levels(picture(engine, job).pixels)
        distances.append(float((after - before).abs().mean()))
    assert distances == sorted(distances)
    assert distances[0] == 0.0
    assert distances[-1] > 2 * distances[1] > 0


def levels(pixels: Pixels):
    return torch.frombuffer(bytearray(pixels.rgb), dtype=torch.uint8).float()


def test_the_order_of_references_matters(engine):
    first, second = a_gradient(64, 96), a_gradient(96, 64, 1)
    one = picture(engine, a_job(images=(first, second)))
    assert picture(engine, a_job(images=(second, first))).pixels != one.pixels


def test_usage_counts_the_models_own_tokens(engine):
    usage = picture(
        engine, a_job(width_px=64, height_px=96, images=(a_gradient(64, 64), a_gradient(80, 64)))
    ).usage
    assert usage.output_image_tokens == 4 * 6
    assert usage.input_image_tokens == 16 + 20
    assert 5 < usage.input_text_tokens < 128


def test_a_cancelled_picture_leaves_at_the_next_step_and_frees_its_place(engine, brake):
    (gone,) = admit(engine, a_job(request_id="gone", num_inference_steps=50))
    assert brake.entered.wait(10)  # it is in its first step, before a shorter one comes
    (stays,) = admit(engine, a_job(request_id="stays"))
    outcome = engine.collect(gone)
    engine.cancel(gone)
    brake.released.set()
    assert isinstance(outcome.result(10), Failure)
    assert isinstance(engine.collect(stays).result(10), Picture)
    assert brake.rows.count("gone") == 1
    health = engine.health()
    assert (health.waiting, health.running) == (0, 0)


def test_a_picture_cancelled_in_its_last_step_is_not_decoded(engine, brake, monkeypatch):
    decoded = []
    monkeypatch.setattr(engine._denoiser, "decoding", decoded.append)
    (gone,) = admit(engine, a_job(num_inference_steps=1))
    assert brake.entered.wait(10)
    engine.cancel(gone)
    brake.released.set()
    assert engine.drain(10)
    engine.close()
    assert decoded == []


def test_a_picture_cancelled_before_it_ran_never_runs(make_engine, monkeypatch):
    engine = make_engine(max_running=1)
    brake = Brake(engine, monkeypatch)
    (running,) = admit(engine, a_job(request_id="running"))
    assert brake.entered.wait(10)
    (waiting,) = admit(engine, a_job(request_id="waiting"))
    engine.cancel(waiting)
    brake.released.set()
    engine.collect(running).result(10)
    engine.cancel(running)
    assert engine.drain(10)
    assert "waiting" not in brake.rows


def test_a_preview_finishes_beside_a_final(engine):
    (final,) = admit(engine, a_job(num_inference_steps=50, width_px=128, height_px=128))
    (preview,) = admit(engine, a_job(num_inference_steps=1))
    engine.collect(preview).result(30)
    assert not engine.collect(final).done()
    engine.cancel(final)


def test_a_deadline_that_passes_ends_the_picture(engine, brake):
    (late,) = admit(engine, a_job(deadline_s=0.5))
    outcome = engine.collect(late)
    assert brake.entered.wait(10)
    time.sleep(0.6)
    brake.released.set()
    failure = outcome.result(10)
    assert isinstance(failure, Failure)
    assert failure.code == "backend_timeout"


def test_more_work_than_fits_the_deadline_is_refused_at_once(engine, brake):
    own_s = engine._register.scheduler.cost.picture_s(16 + 128, 1, 50, 64 * 64)
    final = a_job(num_inference_steps=50, deadline_s=1.5 * own_s)
    admit(engine, final)
    assert brake.entered.wait(10)
    (answer,) = engine.admit([final])  # room for itself, not for what is ahead
    assert isinstance(answer, Refusal)
    assert answer.code == "backend_busy"
    assert 0 < answer.retry_after_s <= 1.5 * own_s
    for ticket in list(engine._register._entries):
        engine.cancel(ticket)


def test_a_full_queue_is_busy_and_says_when_to_come_back(make_engine, monkeypatch):
    engine = make_engine(max_running=1, max_waiting=2)
    brake = Brake(engine, monkeypatch)
    tickets = admit(engine, a_job())
    assert brake.entered.wait(10)
    tickets += admit(engine, a_job(), a_job())
    (answer,) = engine.admit([a_job()])
    assert isinstance(answer, Refusal)
    assert answer.code == "backend_busy"
    assert answer.retry_after_s > 0
    brake.released.set()
    assert all(isinstance(engine.collect(t).result(30), Picture) for t in tickets)


def test_a_picture_no_machine_could_finish_in_time_is_not_called_busy(engine):
    (answer,) = engine.admit([a_job(num_inference_steps=50, deadline_s=0.001)])
    assert isinstance(answer, Refusal)
    assert answer.code == "backend_timeout"


def test_one_bad_picture_fails_alone(engine, monkeypatch):
    step = engine._denoiser.step

    def poisoned(rows):
        if any(row.job.request_id == "bad" for row in rows):
            raise RuntimeError("secret prompt text")
        step(rows)

    monkeypatch.setattr(engine._denoiser, "step", poisoned)
    good, bad, other = admit(engine, a_job(), a_job(request_id="bad"), a_job(num_inference_steps=4))
    failure = engine.collect(bad).result(30)
    assert isinstance(failure, Failure)
    assert failure.code == "backend_error"
    assert "secret" not in failure.message
    assert isinstance(engine.collect(good).result(30), Picture)
    assert isinstance(engine.collect(other).result(30), Picture)


def test_the_text_of_an_exception_is_never_logged(engine, monkeypatch, caplog):
    def poisoned(rows):
        raise RuntimeError(rows[0].job.prompt)

    monkeypatch.setattr(engine._denoiser, "step", poisoned)
    (bad,) = admit(engine, a_job(prompt="a very private wish"))
    engine.collect(bad).result(30)
    assert "RuntimeError" in caplog.text
    assert "private" not in caplog.text


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("tried to allocate"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["device", "host"])
@pytest.mark.parametrize("stage", ["step", "decoding"])
def test_out_of_memory_makes_room_tries_once_more_and_is_then_unavailable(
    engine, monkeypatch, stage, error
):
    tries = []

    def full(rows):
        tries.append(len(engine._cache))
        raise error

    monkeypatch.setattr(engine._denoiser, stage, full)
    (ticket,) = admit(engine, a_job())
    assert engine.collect(ticket).result(30).code == "backend_unavailable"
    assert tries == [1, 0]


@pytest.mark.parametrize("stage", ["step", "decoding"])
def test_a_picture_for_which_there_was_room_at_the_second_try_is_delivered(
    engine, monkeypatch, stage
):
    work, tries = getattr(engine._denoiser, stage), []

    def full_at_first(rows):
        tries.append(1)
        if len(tries) == 1:
            raise torch.OutOfMemoryError
        return work(rows)

    monkeypatch.setattr(engine._denoiser, stage, full_at_first)
    made = picture(engine, a_job(seed=3))
    monkeypatch.undo()
    assert made.pixels == picture(engine, a_job(seed=3)).pixels


def test_pictures_too_large_together_are_made_one_by_one(engine, monkeypatch):
    step = engine._denoiser.step
    entered = threading.Event()

    def small(rows):
        entered.wait(10)
        if len(rows) > 1:
            raise torch.OutOfMemoryError
        step(rows)

    monkeypatch.setattr(engine._denoiser, "step", small)
    tickets = admit(engine, *(a_job(seed=seed) for seed in range(3)))
    entered.set()
    assert all(isinstance(engine.collect(t).result(30), Picture) for t in tickets)


class HeldDecoding:
    """Holds the decoding of one picture behind its first piece; notes whose pieces are done."""

    def __init__(self, engine, monkeypatch, request_id):
        self.entered, self.released = threading.Event(), threading.Event()
        self.seen = []
        decoding = engine._denoiser.decoding

        def held(row):
            pieces = decoding(row)
            name = row.job.request_id
            while True:
                self.seen.append(name)
                try:
                    next(pieces)
                except StopIteration as end:
                    return end.value
                if name == request_id and not self.entered.is_set():
                    self.entered.set()
                    assert self.released.wait(30)
                yield

        monkeypatch.setattr(engine._denoiser, "decoding", held)


def steps_taken(engine, ticket):
    return engine._register.get(ticket).row.step


def eventually(condition):
    """Wait until it is so."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_picture_is_decoded_while_others_are_stepped(engine, monkeypatch):
    held = HeldDecoding(engine, monkeypatch, "first")
    first, second = admit(
        engine,
        a_job(request_id="first", num_inference_steps=10),
        a_job(request_id="second", num_inference_steps=14),
    )
    assert held.entered.wait(10)
    eventually(lambda: steps_taken(engine, second) == 14)
    held.released.set()
    assert isinstance(engine.collect(first).result(30), Picture)
    assert isinstance(engine.collect(second).result(30), Picture)


def test_where_stages_share_cores_a_preview_is_decoded_without_a_final_beside_it(
    engine, monkeypatch
):
    held = HeldDecoding(engine, monkeypatch, "preview")
    (preview,) = admit(engine, a_job(request_id="preview", num_inference_steps=1))
    assert held.entered.wait(10)
    (final,) = admit(engine, a_job(num_inference_steps=50, width_px=256, height_px=256))
    eventually(lambda: engine._register.scheduler.has_runnable)
    time.sleep(0.3)
    assert steps_taken(engine, final) == 0
    held.released.set()
    assert isinstance(engine.collect(preview).result(30), Picture)
    assert isinstance(engine.collect(final).result(30), Picture)


def test_a_device_with_a_queue_of_its_own_takes_both(engine, monkeypatch):
    monkeypatch.setattr(engine._register.scheduler, "_stages_share_cores", False)
    held = HeldDecoding(engine, monkeypatch, "preview")
    (preview,) = admit(engine, a_job(request_id="preview", num_inference_steps=1))
    assert held.entered.wait(10)
    (final,) = admit(engine, a_job(num_inference_steps=50, width_px=256, height_px=256))
    eventually(lambda: steps_taken(engine, final) == 50)
    held.released.set()
    assert isinstance(engine.collect(preview).result(30), Picture)
    assert isinstance(engine.collect(final).result(30), Picture)


def test_a_picture_with_less_left_overtakes_one_that_is_being_decoded(engine, monkeypatch):
    alone = picture(engine, a_job(width_px=512, height_px=512)).pixels
    held = HeldDecoding(engine, monkeypatch, "large")
    (large,) = admit(engine, a_job(request_id="large", width_px=512, height_px=512))
    assert held.entered.wait(10)
    (small,) = admit(engine, a_job(request_id="small"))
    eventually(lambda: steps_taken(engine, small) == 2)
    held.released.set()
    assert isinstance(engine.collect(small).result(30), Picture)
    assert engine.collect(large).result(30).pixels == alone  # and is none the worse for it
    assert held.seen[0] == held.seen[-1] == "large"
    assert "small" in held.seen


def test_memory_that_ran_out_for_one_is_taken_from_all_that_are_being_decoded(engine, monkeypatch):
    """They begin anew, and come out as if nothing had been."""
    jobs = [a_job(request_id=str(i), seed=i, width_px=64 * i, height_px=64) for i in (1, 2, 3)]
    alone = [picture(engine, job).pixels for job in jobs]
    decoding, failed = engine._denoiser.decoding, []

    def full_once(row):
        pieces, number = decoding(row), 0
        while True:
            number += 1
            if number == 4 and row.job.request_id not in failed:
                failed.append(row.job.request_id)
                raise torch.OutOfMemoryError
            try:
                next(pieces)
            except StopIteration as end:
                return end.value
            yield

    monkeypatch.setattr(engine._denoiser, "decoding", full_once)
    tickets = admit(engine, *jobs)
    made = [engine.collect(ticket).result(30).pixels for ticket in tickets]
    assert made == alone
    assert sorted(failed) == ["1", "2", "3"]


def test_the_same_prompt_and_image_of_one_owner_are_encoded_once(engine, monkeypatch):
    job = a_job(images=(a_gradient(64, 96),))
    first = picture(engine, job)
    monkeypatch.setattr(engine._conditioner._prompts, "encode", None)
    monkeypatch.setattr(engine._conditioner._images, "encode", None)
    assert picture(engine, job).pixels == first.pixels
    (ticket,) = admit(engine, a_job(images=(a_gradient(64, 96),), owner="key_2"))
    assert isinstance(engine.collect(ticket).result(30), Failure)  # nothing of another owner's


def test_a_thousand_aborts_leave_nothing_behind_and_the_neighbour_as_it_was(engine):
    job = a_job(num_inference_steps=8, width_px=256, height_px=256, seed=11, deadline_s=600.0)
    alone = picture(engine, job).pixels
    process = psutil.Process()
    outcomes, grown = [], []
    for number in range(1000):
        if number % 250 == 0:
            (ticket,) = admit(engine, job)
            outcomes.append(engine.collect(ticket))
        gone = a_job(num_inference_steps=20, seed=number, prompt=f"boat {number}")
        (ticket,) = admit(engine, gone)
        outcome = engine.collect(ticket)
        if number % 3:
            time.sleep(0.002)  # some leave at once, some in the middle
        engine.cancel(ticket)
        assert isinstance(outcome.result(1), Failure)
        if number in (299, 999):
            grown.append(process.memory_info().rss)
    assert [outcome.result(60).pixels for outcome in outcomes] == [alone] * 4
    health = engine.health()
    assert (health.waiting, health.running) == (0, 0)
    assert grown[1] - grown[0] < 20e6


def test_a_style_that_is_not_loaded_is_refused(engine):
    (answer,) = engine.admit([a_job(lora="sepia")])
    assert isinstance(answer, Refusal)


def test_an_unknown_ticket_is_a_failure_not_an_exception(engine):
    assert isinstance(engine.collect("nonsense").result(1), Failure)
    engine.cancel("nonsense")


def test_a_delivered_picture_is_let_go_of(engine):
    (ticket,) = admit(engine, a_job())
    engine.collect(ticket).result(30)
    engine.cancel(ticket)
    assert len(engine._register) == 0


def test_a_picture_nobody_collects_is_dropped(engine, monkeypatch):
    monkeypatch.setattr("iris.engine.register._UNCOLLECTED_S", 0.0)
    (ticket,) = admit(engine, a_job(num_inference_steps=1))
    engine.collect(ticket).result(30)
    picture(engine, a_job())  # the loop runs again
    engine._register.let_go(time.monotonic())
    assert len(engine._register) == 0


def test_a_ticket_that_nobody_ever_waits_for_is_cancelled_while_it_runs(engine, monkeypatch):
    monkeypatch.setattr("iris.engine.register._UNCOLLECTED_S", 0.3)
    job = a_job(num_inference_steps=50, width_px=256, height_px=256)
    (left,) = admit(engine, job)
    (awaited,) = admit(engine, job)
    outcome = engine.collect(awaited)
    entry = engine._register.get(left)
    assert isinstance(entry.outcome.result(30), Failure)
    assert engine._register.get(left) is None
    assert isinstance(outcome.result(60), Picture)


def test_draining_refuses_new_pictures_and_finishes_the_others(engine, brake):
    tickets = admit(engine, a_job(), a_job(num_inference_steps=4))
    assert brake.entered.wait(10)
    assert not engine.drain(0.01)
    (answer,) = engine.admit([a_job()])
    assert isinstance(answer, Refusal)
    assert answer.code == "backend_unavailable"
    assert not engine.health().ready
    assert engine.health().alive
    brake.released.set()
    assert all(isinstance(engine.collect(t).result(30), Picture) for t in tickets)
    assert not engine.drain(0.01)  # nobody has fetched them yet
    for ticket in tickets:
        engine.cancel(ticket)
    assert engine.drain(0.01)


def test_closing_fails_what_is_still_open(make_engine, monkeypatch):
    engine = make_engine()
    brake = Brake(engine, monkeypatch)
    (ticket,) = admit(engine, a_job(num_inference_steps=50))
    outcome = engine.collect(ticket)
    assert brake.entered.wait(10)
    threading.Timer(0.1, brake.released.set).start()
    engine.close()
    assert outcome.result(1).code == "backend_unavailable"
    assert not engine.health().ready


@pytest.mark.parametrize("stage", ["step", "decoding"])
def test_a_device_that_hangs_keeps_nobody_waiting_and_takes_no_more(
    make_engine, monkeypatch, stage
):
    told = threading.Event()
    engine = make_engine(stall_s=0.5, on_hang=told.set)
    assert engine.health().alive
    released = threading.Event()
    monkeypatch.setattr(engine._denoiser, stage, lambda _: released.wait(30))
    outcomes = [engine.collect(ticket) for ticket in admit(engine, a_job(), a_job())]
    for outcome in outcomes:
        assert outcome.result(10).code == "backend_timeout"
    assert told.wait(10)
    assert not engine.health().alive
    assert not engine.health().ready
    (answer,) = engine.admit([a_job()])
    assert answer.code == "backend_unavailable"
    released.set()
    engine.close()
    assert not engine.health().alive


@pytest.mark.parametrize("stage", ["step", "decoding", "prepare"])
def test_a_device_that_fails_every_call_is_given_up_like_one_that_hangs(
    make_engine, monkeypatch, stage
):
    told = threading.Event()
    engine = make_engine(stall_s=30.0, on_hang=told.set)

    def broken(*args, **kwargs):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(engine._denoiser, stage, broken)
    for ticket in admit(engine, a_job(), a_job(num_inference_steps=50)):
        assert engine.collect(ticket).result(10).code == "backend_unavailable"
    assert told.wait(10)
    assert not engine.health().alive
    (answer,) = engine.admit([a_job()])
    assert answer.code == "backend_unavailable"


def test_a_step_thread_that_ends_leaves_nobody_waiting(make_engine, monkeypatch):
    engine = make_engine()
    (ticket,) = admit(engine, a_job(num_inference_steps=50))

    def broken():
        raise RuntimeError

    monkeypatch.setattr(engine._register.scheduler, "next_round", broken)
    assert isinstance(engine.collect(ticket).result(10), Failure)
    engine._steps._thread.join(10)
    health = engine.health()
    assert not health.alive
    assert not health.ready
    (answer,) = engine.admit([a_job()])
    assert isinstance(answer, Refusal)
    assert answer.code == "backend_unavailable"


def test_an_engine_that_lost_a_thread_is_given_up(make_engine, monkeypatch):
    called = threading.Event()
    engine = make_engine(on_hang=called.set)

    def broken(*_):
        raise RuntimeError

    monkeypatch.setattr(engine._register.scheduler, "next_round", broken)
    admit(engine, a_job(num_inference_steps=50))
    assert called.wait(10)
    assert not engine.health().alive


def test_many_prompts_at_once_are_not_taken_for_a_device_that_hangs(make_engine, monkeypatch):
    called = threading.Event()
    engine = make_engine(stall_s=1.2, on_hang=called.set)
    encode = engine._conditioner._prompts.encode

    def slow(prompts):
        time.sleep(0.15 * len(prompts))
        return encode(prompts)

    monkeypatch.setattr(engine._conditioner._prompts, "encode", slow)
    tickets = admit(engine, *(a_job(prompt=f"boat {number}") for number in range(12)))
    assert all(isinstance(engine.collect(ticket).result(30), Picture) for ticket in tickets)
    assert not called.is_set()


def test_a_style_that_is_being_loaded_holds_nobody_up_who_needs_another(engine, monkeypatch):
    picture(engine, a_job(lora="anime"))
    load, entered, released = engine._styles._load, threading.Event(), threading.Event()

    def held(folder):
        entered.set()
        assert released.wait(30)
        return load(folder)

    monkeypatch.setattr(engine._styles, "_load", held)
    made = []
    loading = threading.Thread(target=lambda: made.append(picture(engine, a_job(lora="dark"))))
    loading.start()
    assert entered.wait(10)
    picture(engine, a_job(lora="anime", seed=2))
    assert engine.health().ready
    assert not made
    released.set()
    loading.join(30)
    assert len(made) == 1


def test_the_step_thread_sleeps_while_a_picture_is_only_being_encoded(engine, monkeypatch):
    rounds = []
    monkeypatch.setattr(engine._register, "let_go", rounds.append)
    encoding = threading.Event()
    prompts = engine._conditioner.prompts

    def slow(jobs):
        encoding.wait(1.2)
        return prompts(jobs)

    monkeypatch.setattr(engine._conditioner, "prompts", slow)
    (ticket,) = admit(engine, a_job(num_inference_steps=1))
    assert isinstance(engine.collect(ticket).result(10), Picture)
    assert len(rounds) < 10


def test_an_engine_that_was_not_started_is_alive_and_not_ready(fine):
    engine = Engine(*fine, max_waiting=1, max_running=1, cache_bytes=0, stall_s=1.0)
    health = engine.health()
    assert health.alive
    assert not health.ready
    (answer,) = engine.admit([a_job()])
    assert isinstance(answer, Refusal)
    engine.close()


def test_admissions_from_many_threads_all_get_their_own_picture(engine):
    outcomes = {}

    def ask(seed):
        (ticket,) = admit(engine, a_job(seed=seed))
        outcomes[seed] = engine.collect(ticket)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    wait(outcomes.values(), 30)
    assert [outcomes[seed].result().seed for seed in range(12)] == list(range(12))
    assert len({outcome.result().pixels.rgb for outcome in outcomes.values()}) == 12


def test_how_much_of_a_decoding_each_piece_is_is_measured_at_start(engine):
    left = list(engine._register.scheduler.cost.decode_left_after)
    assert len(left) > 5
    assert left == sorted(left, reverse=True)
    assert 0 < left[-1] < left[0] < 1
