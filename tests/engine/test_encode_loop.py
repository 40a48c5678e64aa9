"""Images are encoded one picture after another, and nobody waits for those of longer ones."""

import threading

import pytest

from iris.engine.encoder import ImageEncoder
from iris.jobs import Failure, Picture, Ticket
from tests.engine.conftest import a_gradient, a_job


class Encoding:
    """Notes the widths of images in the order in which they are encoded, and can be held up."""

    def __init__(self, monkeypatch):
        self.widths = []
        self.go = threading.Event()
        self.go.set()
        self._encode = ImageEncoder.encode
        monkeypatch.setattr(ImageEncoder, "encode", lambda *given: self(*given))

    def __call__(self, encoder, pixels, canvas):
        assert self.go.wait(20)
        self.widths.append(pixels.width_px)
        return self._encode(encoder, pixels, canvas)

    def hold(self):
        self.widths.clear()
        self.go.clear()


@pytest.fixture
def encoding(monkeypatch):
    return Encoding(monkeypatch)


def an_edit(width_px, **changes):
    return a_job(images=(a_gradient(width_px, 64),), width_px=width_px, height_px=64, **changes)


def test_whoever_is_admitted_does_not_wait_for_images(make_engine, encoding):
    engine = make_engine()
    encoding.hold()
    answers = engine.admit([an_edit(64), an_edit(80)])
    assert all(isinstance(answer, Ticket) for answer in answers)
    assert encoding.widths == []
    (plain,) = engine.admit([a_job()])
    assert isinstance(engine.collect(plain.ticket_id).result(20), Picture)
    encoding.go.set()
    for answer in answers:
        assert isinstance(engine.collect(answer.ticket_id).result(20), Picture)


def test_the_least_work_is_encoded_first_whenever_it_came(make_engine, encoding):
    engine = make_engine()
    encoding.hold()
    sides = (256, 320, 192, 64, 128)
    answers = engine.admit([an_edit(side, strength=0.5) for side in sides[:3]])
    answers += engine.admit([an_edit(side, strength=0.5) for side in sides[3:]])
    encoding.go.set()
    for answer in answers:
        assert isinstance(engine.collect(answer.ticket_id).result(20), Picture)
    begun, *rest = encoding.widths  # one may have been under way when the others came
    assert rest == sorted(rest)
    assert sorted([begun, *rest]) == sorted(sides)


def test_images_of_a_picture_that_nobody_wants_any_more_are_not_encoded(make_engine, encoding):
    engine = make_engine()
    encoding.hold()
    first, gone, last = engine.admit([an_edit(side, strength=0.5) for side in (64, 80, 96)])
    engine.cancel(gone.ticket_id)
    encoding.go.set()
    for answer in (first, last):
        assert isinstance(engine.collect(answer.ticket_id).result(20), Picture)
    assert encoding.widths == [64, 96]


def test_images_that_cannot_be_encoded_fail_their_picture_alone(make_engine, monkeypatch):
    real = ImageEncoder.encode

    def encode(encoder, pixels, canvas):
        if pixels.width_px == 80:
            raise ValueError
        return real(encoder, pixels, canvas)

    monkeypatch.setattr(ImageEncoder, "encode", encode)
    engine = make_engine()
    answers = engine.admit([an_edit(side) for side in (64, 80, 96)])
    outcomes = [engine.collect(answer.ticket_id).result(20) for answer in answers]
    assert [type(outcome) for outcome in outcomes] == [Picture, Failure, Picture]
    assert outcomes[1].code == "backend_error"
