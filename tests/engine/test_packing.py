import torch
from hypothesis import given
from hypothesis import strategies as st

from iris.engine.packing import Layout, reorder, spread

rows = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30)), min_size=1, max_size=6)


@given(rows)
def test_by_row_each_prompt_stands_before_its_own_picture(rows):
    text, picture = zip(*rows, strict=True)
    layout = Layout.of(text, picture, torch.device("cpu"))
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
    text, picture = zip(*rows, strict=True)
    layout = Layout.of(text, picture, torch.device("cpu"))
    values = torch.arange(len(rows)).view(-1, 1)
    for row_of, counts in (
        (layout.row_of_text, text),
        (layout.row_of_picture, picture),
        (layout.row_of_token, layout.segments.lengths),
    ):
        expected = values.repeat_interleave(torch.tensor(counts), 0)
        spreaded = spread(values, row_of)
        assert torch.equal(spreaded.expand(sum(counts), 1), expected)
