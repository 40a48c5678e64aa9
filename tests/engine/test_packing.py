import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iris.engine.packing import Layout, reorder, spread

# tokens of the prompt, of the picture itself, of its references
rows = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 30), st.integers(0, 20)), min_size=1, max_size=6
)


def laid_out(rows, **how):
    text, painted, references = zip(*rows, strict=True)
    picture = tuple(map(sum, zip(painted, references, strict=True)))
    return text, picture, painted, Layout.of(text, picture, painted, torch.device("cpu"), **how)


@given(rows)
def test_by_row_each_prompt_stands_before_its_own_picture(rows):
    text, picture, _, layout = laid_out(rows)
    prompts = [(i, "text", k) for i, count in enumerate(text) for k in range(count)]
    pictures = [(i, "picture", k) for i, count in enumerate(picture) for k in range(count)]
    by_stream = prompts + pictures
    numbers = reorder(torch.arange(len(by_stream)), layout.to_rows).tolist()
    by_row = [by_stream[number] for number in numbers]
    assert by_row == sorted(by_stream, key=lambda token: (token[0], token[1] == "picture"))
    there = torch.arange(len(by_stream))
    back = reorder(reorder(there, layout.to_rows), layout.to_streams)
    assert torch.equal(back, there)


@given(rows)
def test_what_a_row_has_is_spread_over_its_own_tokens(rows):
    text, picture, painted, layout = laid_out(rows)
    values = torch.arange(len(rows)).view(-1, 1)
    for row_of, counts in (
        (layout.row_of_text, text),
        (layout.row_of_picture, picture),
        (layout.row_of_token, layout.segments.lengths),
        (layout.row_of_painted, painted),
    ):
        expected = values.repeat_interleave(torch.tensor(counts), 0)
        spreaded = spread(values, row_of)
        assert torch.equal(spreaded.expand(sum(counts), 1), expected)


@pytest.mark.parametrize("as_several", [False, True])
@given(rows)
def test_what_is_painted_of_a_row_stands_between_its_prompt_and_its_references(as_several, rows):
    _, _, painted, layout = laid_out(rows, as_several=as_several)
    by_row = [
        (row, part)
        for row, counts in enumerate(rows)
        for part, count in zip(("text", "painted", "reference"), counts, strict=True)
        for _ in range(count)
    ]
    places = reorder(torch.arange(len(by_row)), layout.to_painted).tolist()
    expected = [(row, "painted") for row, count in enumerate(painted) for _ in range(count)]
    assert [by_row[place] for place in places] == expected
    assert places == sorted(set(places))
    assert layout.painting.lengths == layout.segments.lengths
    assert layout.painting.asking == painted
