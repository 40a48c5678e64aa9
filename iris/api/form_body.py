"""multipart/form-data, as the OpenAI SDKs send edits, brought to the shape of the JSON body."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from iris.api.json_body import has_odd_character, short_name
from iris.errors import InvalidRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 64
MAX_PADDING_BYTES = 64  # of spaces and tabs that may follow a boundary on its line
MAX_PARAMETERS = 64  # of a part's Content-Disposition
FILE_FIELDS = ("image", "image[]")
MASK_FIELD = "mask"


@dataclass(slots=True)
class _Part:
    name: str = ""
    is_file: bool = False
    chunks: list[bytes] = field(default_factory=list)
    headers: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks)


def parse_form(data: bytes, boundary: bytes) -> dict[str, object]:
    """Parse a whole form: scalar parts as str, one file as `image`, several as `images`, a `mask`.

    Files are the parts `image` and `image[]`, in their order, and `mask`. Raises:
        InvalidRequest: not well-formed, too many parts, a part given twice, a file where text
            belongs.
    """
    values: dict[str, object] = {}
    files: list[bytes] = []
    for part in _split(data, boundary):
        name = short_name(part.name)
        if part.name in FILE_FIELDS:
            files.append(part.data)  # a file with or without a filename: nothing else fits here
        elif part.name in values:
            raise InvalidRequest(f"`{name}` is given twice; give it once.", param=name)
        elif part.name == MASK_FIELD:
            values[part.name] = part.data
        elif part.is_file:
            raise InvalidRequest(
                f"`{name}` is sent as a file; only `image`, `image[]` and `mask` are files.",
                param=name,
            )
        else:
            values[part.name] = _text(part, name)
    if "images" in values:
        raise InvalidRequest(
            "`images` is no part of a form; send several files named `image` or `image[]`.",
            param="images",
        )
    if len(files) == 1:
        values["image"] = files[0]
    elif files:
        values["images"] = files
    return values


def _split(data: bytes, boundary: bytes) -> list[_Part]:
    _check_boundaries(data, b"\r\n--" + boundary)
    collector = _Collector()
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(data)
    except FormParserError:
        raise InvalidRequest("The body is not well-formed multipart/form-data.") from None
    if not collector.ended:
        raise InvalidRequest("The multipart body ends before its closing boundary.")
    return collector.parts


def _check_boundaries(data: bytes, line: bytes) -> None:
    """Refuse what the parser would step through byte by byte, in Python; this runs in C.

    line: what each boundary but the first begins with.

    Raises:
        InvalidRequest: more boundaries than there may be parts, or one that is padded at length.
    """
    count, at = 0, data.find(line)
    while at >= 0:
        count += 1
        if count > MAX_PARTS + 1:  # one more ends the form
            raise _too_many_parts()
        after = at + len(line)
        padding = data[after : after + MAX_PADDING_BYTES + 1]
        if len(padding) > MAX_PADDING_BYTES and not padding.strip(b" \t"):
            raise InvalidRequest(
                f"A boundary of the form is followed by over {MAX_PADDING_BYTES} spaces; leave "
                "them out."
            )
        at = data.find(line, after)


def _too_many_parts() -> InvalidRequest:
    return InvalidRequest(f"The form has more than {MAX_PARTS} parts; send fewer.")


class _Collector:
    """Takes the parser's callbacks and gathers whole parts."""

    def __init__(self) -> None:
        self.parts: list[_Part] = []
        self.ended = False
        self._header_name = b""
        self._header_value = b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part_begin,
            "on_part_data": self._part_data,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value_data,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        if len(self.parts) == MAX_PARTS:
            raise _too_many_parts()
        self.parts.append(_Part())

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].chunks.append(data[start:end])

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_value_data(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        self.parts[-1].headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _headers_finished(self) -> None:
        part = self.parts[-1]
        disposition = part.headers.get(b"content-disposition", b"")
        if disposition.count(b";") > MAX_PARAMETERS:  # each takes longer than the one before
            raise InvalidRequest(
                f"A `Content-Disposition` of the form has more than {MAX_PARAMETERS} semicolons; "
                "send a shorter filename."
            )
        kind, options = parse_options_header(disposition)
        if kind != b"form-data" or b"name" not in options:
            raise InvalidRequest(
                "Every part of the form needs a `Content-Disposition: form-data` with a name."
            )
        coding = part.headers.get(b"content-transfer-encoding", b"binary").strip().lower()
        if coding not in (b"binary", b"8bit", b"7bit"):
            raise InvalidRequest("The parts of the form must be sent as they are, not encoded.")
        try:
            part.name = options[b"name"].decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidRequest("A part of the form has a name that is not UTF-8.") from None
        part.is_file = b"filename" in options

    def _end(self) -> None:
        self.ended = True


def _text(part: _Part, name: str) -> str:
    try:
        text = part.data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(f"`{name}` is not UTF-8 text.", param=name) from None
    if has_odd_character(text):
        raise InvalidRequest(f"`{name}` holds a NUL; send plain text.", param=name)
    return text
