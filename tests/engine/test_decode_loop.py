"""How long decodings take is remembered."""

import time

from tests.engine.conftest import a_job


def test_what_is_promised_follows_the_decodings_that_are_seen(make_engine, monkeypatch):
    engine, job = make_engine(), a_job()
    before = engine.quote(job)
    decoding = engine._denoiser.decoding

    def slow(row):
        time.sleep(0.3)
        return (yield from decoding(row))

    monkeypatch.setattr(engine._denoiser, "decoding", slow)
    for _ in range(3):
        (ticket,) = engine.admit([job])
        engine.collect(ticket.ticket_id).result(30)
    line = engine._register.scheduler.cost.decode
    assert line.predict_s(64 * 64) > 2 * line.as_laid().predict_s(64 * 64)
    assert engine.quote(job).own_s > before.own_s
