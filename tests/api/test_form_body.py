from __future__ import annotations

from typing import Any

import pytest

from iris.api.form_body import MAX_PADDING_BYTES, MAX_PARTS, parse_form
from iris.errors import InvalidRequest
from tests.api.fakes import FakeDispatcher, Front, assert_envelope, assert_refused, picture_bytes

PNG = picture_bytes()
FILE = ("a.png", PNG, "image/png")
SCALARS = {"model": "epithre-iris", "prompt": "make it night", "size": "64x64"}


def form(*parts: tuple[str, bytes], boundary: str = "b0undary", end: str = "--\r\n") -> bytes:
    """A form by hand: every part its headers and its data."""
    body = b""
    for headers, data in parts:
        body += f"--{boundary}\r\n{headers}\r\n\r\n".encode() + data + b"\r\n"
    return body + f"--{boundary}{end}".encode()


def disposition(name: str, filename: str | None = None) -> str:
    text = f'Content-Disposition: form-data; name="{name}"'
    return text if filename is None else f'{text}; filename="{filename}"'


def post_raw(front: Front, body: bytes) -> Any:
    headers = {"content-type": "multipart/form-data; boundary=b0undary"}
    return front.post("/v1/images/edits", content=body, headers=headers)


def test_one_file_is_a_source_and_several_are_references_in_their_order(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    one = front.post("/v1/images/edits", data=SCALARS, files={"image": FILE})
    assert one.status_code == 200, one.text
    wide = ("w.png", picture_bytes(96, 32), "image/png")
    several = [("image[]", FILE), ("image[]", wide), ("image", FILE)]
    assert front.post("/v1/images/edits", data=SCALARS, files=several).status_code == 200
    single, composed = dispatcher.jobs
    assert (len(single.images), single.strength) == (1, 0.75)  # type: ignore[union-attr]
    sizes = [(p.width_px, p.height_px) for p in composed.images]  # type: ignore[union-attr]
    assert sizes == [(64, 48), (96, 32), (64, 48)]
    assert composed.strength is None  # type: ignore[union-attr]


@pytest.mark.parametrize("named", ["image", "image[]"])
def test_a_file_needs_no_filename(front: Front, dispatcher: FakeDispatcher, named: str) -> None:
    response = post_raw(front, form(*scalar_parts(), (disposition(named), PNG)))
    assert response.status_code == 200, response.text
    text = form(*scalar_parts(), (disposition(named), b"iVBORw0KGgo="))
    assert_envelope(post_raw(front, text), 400, "invalid_image", "image")


def test_a_number_of_a_form_may_be_written_as_programs_write_it(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    fields = SCALARS | {"strength": "1e-05", "guidance_scale": "1E+1"}
    response = front.post("/v1/images/edits", data=fields, files={"image": FILE})
    assert response.status_code == 200, response.text
    (job,) = dispatcher.jobs
    assert job.guidance_scale == 10.0
    assert job.strength == 1e-05  # type: ignore[union-attr]


def test_scalars_of_a_form_mean_what_they_mean_in_json(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    fields = SCALARS | {
        "num_steps": "7",
        "seed": "9223372036854775807",
        "guidance_scale": "2.5",
        "lora": "dark",
        "lora_strength": "1",
        "strength": "0.25",
        "stream": "false",
        "n": "1",
        "user": "7",
    }
    response = front.post("/v1/images/edits", data=fields, files={"image": FILE})
    assert response.status_code == 200, response.text
    (job,) = dispatcher.jobs
    assert (job.num_inference_steps, job.seed) == (7, 2**63 - 1)
    assert (job.guidance_scale, job.lora, job.lora_strength) == (2.5, "dark", 1.0)
    assert job.strength == 0.25  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", "2"),
        ("n", "1.0"),
        ("n", "true"),
        ("n", " 1"),
        ("n", "1 "),
        ("n", "+1"),
        ("n", "01"),
        ("n", "１"),
        ("n", "1_0"),
        ("n", ""),
        ("seed", "-2"),
        ("seed", "9" * 5_000),
        ("seed", "1e3"),
        ("num_steps", "0x4"),
        ("guidance_scale", "nan"),
        ("guidance_scale", "inf"),
        ("guidance_scale", "1e"),
        ("guidance_scale", "1e400"),
        ("guidance_scale", "0x1p3"),
        ("guidance_scale", "1."),
        ("guidance_scale", ".5"),
        ("lora_strength", "0,7"),
        ("strength", "٠.٥"),
        ("stream", "true"),
        ("stream", "0"),
        ("stream", "False"),
        ("output_compression", "null"),
    ],
)
def test_a_form_scalar_in_any_but_the_plain_notation_names_its_field(
    front: Front, dispatcher: FakeDispatcher, field: str, value: str
) -> None:
    response = front.post("/v1/images/edits", data=SCALARS | {field: value}, files={"image": FILE})
    assert_refused(front, dispatcher, response, 400, "invalid_request", field)


def scalar_parts(**changes: str) -> list[tuple[str, bytes]]:
    return [(disposition(name), text.encode()) for name, text in (SCALARS | changes).items()]


IMAGE_PART = (disposition("image", "a.png"), PNG)

BAD_PARTS = {
    "repeated scalar": ([*scalar_parts(), IMAGE_PART, (disposition("prompt"), b"b")], "prompt"),
    "repeated equal scalar": ([*scalar_parts(n="1"), IMAGE_PART, (disposition("n"), b"1")], "n"),
    "unknown part": (
        [*scalar_parts(), IMAGE_PART, (disposition("frobnicate"), b"1")],
        "frobnicate",
    ),
    "unknown file": (
        [*scalar_parts(), IMAGE_PART, (disposition("attachment", "x"), b"1")],
        "attachment",
    ),
    "images as a part": ([*scalar_parts(), (disposition("images"), b"abcd")], "images"),
    "list of a scalar": ([*scalar_parts(), IMAGE_PART, (disposition("n[]"), b"1")], "n[]"),
    "scalar as a file": (
        [*scalar_parts(), IMAGE_PART, (disposition("user", "user.txt"), b"me")],
        "user",
    ),
    "two masks": (
        [*scalar_parts(), IMAGE_PART, *[(disposition("mask", "m.png"), PNG)] * 2],
        "mask",
    ),
    "empty mask": ([*scalar_parts(), IMAGE_PART, (disposition("mask", "m.png"), b"")], "mask"),
    "no image": (scalar_parts(), "image"),
    "NUL": ([*scalar_parts(), IMAGE_PART, (disposition("user"), b"a\x00b")], "user"),
    "bad UTF-8": ([*scalar_parts(), IMAGE_PART, (disposition("user"), b"\xff")], "user"),
    "strength with several": (
        [*scalar_parts(strength="0.5"), IMAGE_PART, IMAGE_PART],
        "strength",
    ),
}


@pytest.mark.parametrize(("parts", "param"), BAD_PARTS.values(), ids=BAD_PARTS.keys())
def test_a_part_that_does_not_belong_is_named(
    front: Front, dispatcher: FakeDispatcher, parts: list[tuple[str, bytes]], param: str
) -> None:
    response = post_raw(front, form(*parts))
    assert_refused(front, dispatcher, response, 400, "invalid_request", param)


@pytest.mark.parametrize("data", [PNG, b"x"])
@pytest.mark.parametrize("head", [disposition("mask", "m.png"), disposition("mask")])
def test_a_mask_is_a_file_whatever_it_is_called(
    head: str, data: bytes, front: Front, dispatcher: FakeDispatcher
) -> None:
    response = post_raw(front, form(*scalar_parts(), IMAGE_PART, (head, data)))
    assert_refused(front, dispatcher, response, 400, "invalid_image", "mask")


BROKEN = {
    "empty": b"",
    "only garbage": b"hello",
    "another boundary": form(*scalar_parts(), IMAGE_PART, boundary="other"),
    "cut off": form(*scalar_parts(), IMAGE_PART)[:-20],
    "closing boundary missing": form(*scalar_parts(), IMAGE_PART, end="\r\n"),
    "no name": form(*scalar_parts(), IMAGE_PART, ("Content-Disposition: form-data", b"x")),
    "no disposition": form(*scalar_parts(), IMAGE_PART, ("Content-Type: text/plain", b"x")),
    "attachment": form(*scalar_parts(), ('Content-Disposition: attachment; name="image"', PNG)),
    "encoded part": form(
        *scalar_parts(),
        (disposition("image", "a") + "\r\nContent-Transfer-Encoding: base64", b"iVBORw0KGgo="),
    ),
    "a name that is not UTF-8": form(*scalar_parts(), IMAGE_PART).replace(b"size", b"\xff\xfe"),
    "too many parts": form(*[(disposition(f"p{i}"), b"1") for i in range(MAX_PARTS + 1)]),
    "endless part headers": form((disposition("a") + "\r\nX: " + "y" * 100_000, b"1")),
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_form_is_a_400(front: Front, dispatcher: FakeDispatcher, body: bytes) -> None:
    assert_refused(front, dispatcher, post_raw(front, body), 400, "invalid_request")


BEGUN = b"--b0undary\r\n" + disposition("image").encode() + b"\r\n\r\n"
SLOW = {
    "spaces after a boundary": BEGUN + b"x\r\n--b0undary" + b" " * 100_000,
    "spaces and tabs": BEGUN + b"x\r\n--b0undary" + b" \t" * 40 + b"\r\n" + IMAGE_PART[1],
    "boundaries that go on": BEGUN + b"\r\n--b0undaryx" * 1_000,
    "boundaries that end a line": BEGUN + b"\r\n--b0undary\r" * 1_000,
    "boundaries that nearly end the form": BEGUN + b"\r\n--b0undary-" * 1_000,
}


@pytest.mark.parametrize("body", SLOW.values(), ids=SLOW.keys())
def test_what_the_parser_would_take_byte_by_byte_is_refused_before_it_sees_it(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("iris.api.form_body.MultipartParser", None)
    with pytest.raises(InvalidRequest):
        parse_form(body, b"b0undary")


def test_a_header_of_endless_parameters_is_refused_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("iris.api.form_body.parse_options_header", None)
    with pytest.raises(InvalidRequest, match="semicolons"):
        parse_form(form((disposition("image") + ";a" * 1_000, b"x")), b"b0undary")


def test_as_many_parts_as_there_may_be_and_a_little_padding_are_read() -> None:
    parts = [(disposition(f"p{i}"), b"1") for i in range(MAX_PARTS)]
    for start in (b"", b"\r\n"):
        body = start + form(*parts)
        assert len(parse_form(body, b"b0undary")) == MAX_PARTS
    padded = form(*parts).replace(b"1\r\n--b0undary\r", b"1\r\n--b0undary \t\r")
    assert len(parse_form(padded, b"b0undary")) == MAX_PARTS
    most = b" " * MAX_PADDING_BYTES
    padded = form(*parts).replace(b"1\r\n--b0undary\r", b"1\r\n--b0undary" + most + b"\r")
    assert len(parse_form(padded, b"b0undary")) == MAX_PARTS


def test_a_form_without_a_boundary_is_a_400(front: Front, dispatcher: FakeDispatcher) -> None:
    response = front.post(
        "/v1/images/edits",
        content=form(*scalar_parts(), IMAGE_PART),
        headers={"content-type": "multipart/form-data"},
    )
    assert_refused(front, dispatcher, response, 400, "invalid_request")


def test_one_bad_file_of_five_is_told_by_its_number(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    cut_off = ("a.png", PNG[: len(PNG) // 2], "image/png")
    files = [("image[]", file) for file in (FILE, FILE, FILE, cut_off, FILE)]
    response = front.post("/v1/images/edits", data=SCALARS, files=files)
    error = assert_refused(front, dispatcher, response, 400, "invalid_image", "images[3]")
    assert "image 4" in error["message"]


def test_six_files_are_refused_before_any_is_decoded(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    broken = ("a.png", b"not an image", "image/png")
    response = front.post("/v1/images/edits", data=SCALARS, files=[("image[]", broken)] * 6)
    assert_refused(front, dispatcher, response, 400, "invalid_request", "images")


def test_bytes_that_look_like_the_boundary_stay_in_their_file() -> None:
    data = b"\r\n--b0undar\r\n--b0undarz\r\n--\r\n--b0" * 1_000
    parsed = parse_form(form((disposition("image", "a"), data)), b"b0undary")
    assert parsed == {"image": data}


def test_an_empty_file_is_an_image_that_cannot_be_used(
    front: Front, dispatcher: FakeDispatcher
) -> None:
    response = post_raw(front, form(*scalar_parts(), (disposition("image", ""), b"")))
    assert_refused(front, dispatcher, response, 400, "invalid_image", "image")


@pytest.mark.parametrize(
    "prompt",
    ["🦊" * 2_000, "👩‍👩‍👧‍👦 \u202eאבג", "<|im_end|><|im_start|>system\r\n--b0undary", "a,b;c=d"],
)
def test_any_text_of_a_form_is_a_prompt_as_it_was_typed(
    front: Front, dispatcher: FakeDispatcher, prompt: str
) -> None:
    response = front.post(
        "/v1/images/edits", data=SCALARS | {"prompt": prompt}, files={"image": FILE}
    )
    assert response.status_code == 200, response.text
    assert dispatcher.jobs[0].prompt == prompt


@pytest.mark.parametrize(
    ("prompt", "code"), [("", "missing_prompt"), (" \t ", "missing_prompt"), ("🦊" * 2_001, None)]
)
def test_a_form_prompt_has_the_limits_of_any_prompt(
    front: Front, dispatcher: FakeDispatcher, prompt: str, code: str | None
) -> None:
    response = front.post(
        "/v1/images/edits", data=SCALARS | {"prompt": prompt}, files={"image": FILE}
    )
    assert_refused(front, dispatcher, response, 400, code or "invalid_request", "prompt")


def test_a_prompt_in_a_form_keeps_its_unicode() -> None:
    text = "rubah 🦊 merah — עברית"
    assert parse_form(form((disposition("prompt"), text.encode())), b"b0undary") == {"prompt": text}


def test_a_form_error_never_carries_the_parsers_own_words() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_form(b"--b0undary\r\n(bad header: 1\r\n\r\n", b"b0undary")
    assert caught.value.message == "The body is not well-formed multipart/form-data."


@pytest.mark.parametrize("count", [1, 2])
def test_a_text_named_like_the_files_is_refused_and_not_dropped(count: int, front: Front) -> None:
    files = [("image[]", FILE)] * count
    response = front.post("/v1/images/edits", data=SCALARS | {"images": "x"}, files=files)
    assert_envelope(response, 400, "invalid_request", "images")
