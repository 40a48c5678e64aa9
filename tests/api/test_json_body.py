from __future__ import annotations

import json
import time

import httpx
import pytest

from iris.api.body import INLINE_BYTES
from iris.api.json_body import parse_json
from iris.errors import InvalidRequest
from tests.api.fakes import FakeDispatcher, Front, assert_refused, generation

GOOD = json.dumps(generation())

BAD = {
    "empty": b"",
    "truncated": GOOD[:-1].encode(),
    "trailing bytes": (GOOD + "x").encode(),
    "two objects": (GOOD + GOOD).encode(),
    "comment": (GOOD[:-1] + "/* hi */}").encode(),
    "line comment": (GOOD + "// hi").encode(),
    "trailing comma": (GOOD[:-1] + ",}").encode(),
    "single quotes": GOOD.replace('"', "'").encode(),
    "BOM": b"\xef\xbb\xbf" + GOOD.encode(),
    "UTF-16": GOOD.encode("utf-16"),
    "UTF-16 without BOM": GOOD.encode("utf-16-le"),
    "UTF-32": GOOD.encode("utf-32"),
    "bad UTF-8": GOOD.encode().replace(b"fox", b"f\xffx"),
    "surrogate in UTF-8": GOOD.encode().replace(b"fox", b"\xed\xa0\x80"),
    "overlong UTF-8": GOOD.encode().replace(b"fox", b"\xc0\x80"),
    "null": b"null",
    "array": b"[]",
    "array of the object": f"[{GOOD}]".encode(),
    "string": b'"a red fox"',
    "number": b"1",
    "deep list": b"[" * 100_000 + b"]" * 100_000,
    "deep list within the structure limit": b"[" * 4_000 + b"]" * 4_000,
    "deep field of 100,000": b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep field": b'{"prompt":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "deep object": b'{"a":' * 9_000 + b"1" + b"}" * 9_000,
    "raw control character": GOOD.encode().replace(b"fox", b"\x01"),
    "raw NUL": GOOD.encode().replace(b"fox", b"\x00"),
    "bad escape": GOOD.encode().replace(b"fox", b"\\x"),
    "hexadecimal": b'{"model":"epithre-iris","prompt":"a","seed":0x10}',
    "leading zero": b'{"model":"epithre-iris","prompt":"a","seed":01}',
    "NaN": b'{"model":"epithre-iris","prompt":"a","guidance_scale":NaN}',
    "Infinity": b'{"model":"epithre-iris","prompt":"a","guidance_scale":Infinity}',
    "-Infinity": b'{"model":"epithre-iris","prompt":"a","seed":-Infinity}',
    "surrogate in a key": b'{"model":"epithre-iris","prompt":"a","\\udc00":1}',
    "NUL in a key": b'{"model":"epithre-iris","prompt":"a","a\\u0000b":1}',
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07builtins",
}

BAD_FIELDS = {
    "lone high surrogate": (r'{"model":"epithre-iris","prompt":"a \ud83d b"}', "prompt"),
    "lone low surrogate": (r'{"model":"epithre-iris","prompt":"a \udca9 b"}', "prompt"),
    "surrogates the wrong way round": (
        r'{"model":"epithre-iris","prompt":"\udca9\ud83d"}',
        "prompt",
    ),
    "NUL": (r'{"model":"epithre-iris","prompt":"a\u0000b"}', "prompt"),
    "NUL deep inside": (r'{"model":"epithre-iris","prompt":"a","user":[{"a":"\u0000"}]}', "user"),
    "duplicate key": ('{"model":"epithre-iris","prompt":"a","prompt":"b"}', "prompt"),
    "duplicate key, escaped": (
        r'{"model":"epithre-iris","prompt":"a","\u0070rompt":"b"}',
        "prompt",
    ),
    "duplicate key of equal values": ('{"model":"epithre-iris","n":1,"n":1,"prompt":"a"}', "n"),
    "integer of 5,000 digits": (
        '{"model":"epithre-iris","prompt":"a","seed":' + "9" * 5_000 + "}",
        "seed",
    ),
    "negative integer of 5,000 digits": (
        '{"model":"epithre-iris","prompt":"a","seed":-' + "9" * 5_000 + "}",
        "seed",
    ),
    "1e400": ('{"model":"epithre-iris","prompt":"a","guidance_scale":1e400}', "guidance_scale"),
    "-1e400": ('{"model":"epithre-iris","prompt":"a","lora_strength":-1e400}', "lora_strength"),
}


GENERATIONS = "/v1/images/generations"
EDITS = "/v1/images/edits"


def post(front: Front, body: bytes, path: str = GENERATIONS) -> httpx.Response:
    return front.post(path, content=body, headers={"content-type": "application/json"})


@pytest.mark.parametrize("path", [GENERATIONS, EDITS])
@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_what_is_not_one_strict_json_object_never_reaches_the_engine(
    front: Front, dispatcher: FakeDispatcher, body: bytes, path: str
) -> None:
    # no field is named: what is wrong with an edit without images would name `image`
    assert_refused(front, dispatcher, post(front, body, path), 400, "invalid_request")


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_a_large_body_is_read_as_strictly_as_a_small_one(
    front: Front, dispatcher: FakeDispatcher, body: bytes
) -> None:
    large = b" " * INLINE_BYTES + body  # read in a thread, not on the loop
    assert_refused(front, dispatcher, post(front, large), 400, "invalid_request")


@pytest.mark.parametrize("path", [GENERATIONS, EDITS])
@pytest.mark.parametrize(("body", "param"), BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
def test_a_value_no_field_can_have_names_its_field(
    front: Front, dispatcher: FakeDispatcher, body: str, param: str, path: str
) -> None:
    response = post(front, body.encode(), path)
    assert_refused(front, dispatcher, response, 400, "invalid_request", param)


def test_a_proper_surrogate_pair_is_one_character() -> None:
    assert parse_json(rb'{"prompt":"\ud83d\ude00"}') == {"prompt": "😀"}


def test_white_space_around_the_object_is_json() -> None:
    assert parse_json(b' \r\n\t{"n": 1} \n') == {"n": 1}


def test_a_body_of_empty_lists_is_refused_before_it_fills_the_memory() -> None:
    began = time.thread_time()
    with pytest.raises(InvalidRequest, match="too many JSON values"):
        parse_json(b'{"a":[' + b"[]," * 10_000_000 + b"1]}")
    assert time.thread_time() - began < 2


def test_a_prompt_of_nothing_but_commas_is_still_text() -> None:
    assert parse_json(json.dumps({"prompt": "," * 2_000}).encode()) == {"prompt": "," * 2_000}


def test_an_error_never_quotes_the_body() -> None:
    for body in (b'{"secret prompt"', b'{"a":"secret prompt"} x', b'{"a":"secret\x00prompt"}'):
        with pytest.raises(InvalidRequest) as caught:
            parse_json(body)
        assert "secret" not in caught.value.message
        assert caught.value.__suppress_context__


def test_a_very_long_field_name_is_cut_short() -> None:
    name = "x" * 5_000
    with pytest.raises(InvalidRequest) as caught:
        parse_json(f'{{"{name}":1,"{name}":2}}'.encode())
    assert len(caught.value.message) < 200
    assert caught.value.param == "x" * 64 + "…"
