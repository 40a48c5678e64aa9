"""Passes are taken while others are encoded, and how long they take is remembered."""

import threading
import time

import pytest
import torch

from iris.jobs import Failure, Picture
from tests.engine.conftest import a_gradient, a_job


@pytest.fixture
def engine(make_engine):
    return make_engine()


def outcomes(engine, *jobs):
    tickets = [answer.ticket_id for answer in engine.admit(jobs)]
    return [engine.collect(ticket).result(30) for ticket in tickets]


def eventually(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_is_promised_follows_the_passes_that_are_seen(engine, monkeypatch):
    job = a_job(num_inference_steps=4)
    before = engine.quote(job)
    step = engine._denoiser.step

    def slow(rows):
        time.sleep(0.2)
        step(rows)

    monkeypatch.setattr(engine._denoiser, "step", slow)
    for _ in range(3):
        outcomes(engine, job)
    line = engine._register.scheduler.cost.step
    assert line.predict_s(4) > 2 * line.as_laid().predict_s(4)
    assert engine.quote(job).own_s > before.own_s


def test_pictures_are_stepped_while_the_prompt_of_another_is_encoded(engine, monkeypatch):
    prompts, entered, released = engine._conditioner._prompts, threading.Event(), threading.Event()
    encode = prompts.encode

    def held(texts):
        entered.set()
        assert released.wait(30)
        return encode(texts)

    (running,) = engine.admit([a_job(num_inference_steps=40)])
    monkeypatch.setattr(prompts, "encode", held)
    others = []
    job = a_job(prompt="a blue cup")
    admitting = threading.Thread(target=lambda: others.extend(engine.admit([job])))
    admitting.start()
    assert entered.wait(10)
    assert isinstance(engine.collect(running.ticket_id).result(30), Picture)
    assert not others
    released.set()
    admitting.join(10)
    assert isinstance(engine.collect(others[0].ticket_id).result(30), Picture)


def test_a_picture_that_is_not_finite_fails_alone(engine, monkeypatch, caplog):
    """In the midst of passes with others, who do not see it, and not before it is decoded."""
    jobs = [
        a_job(request_id="first", num_inference_steps=6),
        a_job(request_id="bad", num_inference_steps=6, seed=2, lora="dark"),
        a_job(request_id="edit", num_inference_steps=6, images=(a_gradient(64, 64),)),
    ]
    alone = [made.pixels for made in outcomes(engine, jobs[0], jobs[2])]
    monkeypatch.setattr(engine._register.scheduler, "_budget", lambda: float("inf"))
    step, together = engine._denoiser.step, []
    here = threading.Event()

    def poisoned(rows):
        assert here.wait(10)
        step(rows)
        together.append(len(rows))
        for row in rows:
            if row.job.request_id == "bad" and row.step == 2:
                row.latents = torch.full_like(row.latents, torch.nan)

    monkeypatch.setattr(engine._denoiser, "step", poisoned)
    tickets = [answer.ticket_id for answer in engine.admit(jobs[:2])]
    tickets += [answer.ticket_id for answer in engine.admit(jobs[2:])]
    eventually(lambda: engine._register.get(tickets[2]).row is not None)
    here.set()
    first, bad, edit = (engine.collect(ticket).result(30) for ticket in tickets)
    assert max(together) == 3
    assert isinstance(bad, Failure)
    assert bad.code == "backend_error"
    assert "FloatingPointError" in caplog.text
    assert [first.pixels, edit.pixels] == alone
