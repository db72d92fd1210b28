"""The fast parser says what the careful one says, value by value and type by type, or it says nothing."""

import json
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.data import parsing
from rlhf.data.parsing import Parser, plain, read_row
from rlhf.data.records import Limits, Raw

LIMITS = Limits(nesting=4, digits=30)

spaces = st.sampled_from(["", "", " ", "\t", "\n ", "\r", "\u00a0", "\x0b"])
pieces = st.sampled_from(
    ["a", "é", "\u2028", "😀", ":", '\\":', '\\" :', "\\u0022:", '{\\"a\\" : 1}', "\\\\", "\\/", "\\n", "\\u0000",
     "\\u12", "\\ud83d\\ude00", "\\ud83d", "\\uDE00", "\\x", "\n", "\x7f", "[", "{", ",", "1"]
)  # fmt: skip
strings = st.lists(pieces, max_size=4).map(lambda parts: f'"{"".join(parts)}"')
keys = st.sampled_from(['"a"', '"b"', '"\\u0061"', '""', '"a:"']) | strings
scalars = strings | st.sampled_from(
    ["true", "false", "null", "NaN", "-Infinity", "-0", "-0.0", "0", "01", "1.", "1e5", "1e400", "1E-400", "0.1",
     "9007199254740993", str(2**63), str(2**64 - 1), str(2**64), f"-{2**63 + 1}", "9" * 40, "0." + "1" * 40, "+1", ""]
)  # fmt: skip


def listed(items):
    return st.tuples(st.lists(items, max_size=3), spaces).map(lambda t: f"[{t[1]}{f',{t[1]}'.join(t[0])}]")


def mapped(items):
    pairs = st.tuples(keys, spaces, spaces, items).map("".join)
    fields = st.tuples(keys, spaces, spaces, items).map(lambda t: f"{t[0]}{t[1]}:{t[2]}{t[3]}")
    return st.lists(fields | fields | fields | pairs, max_size=4).map(lambda parts: f"{{{','.join(parts)}}}")


values = st.recursive(scalars, lambda items: listed(items) | mapped(items), max_leaves=8)
records = st.tuples(spaces, mapped(values) | values, spaces).map("".join)


def carefully(monkeypatch, data, limits):
    with monkeypatch.context() as patch:
        patch.setattr(parsing, "plain", lambda data, limits: None)
        return read_row(3, Raw(7, data), Parser(limits))


def agree(monkeypatch, data, limits=LIMITS):
    """Hold the row as it is read against the careful parser's; `repr` tells 1 from 1.0 and True, and 0.0 from -0.0."""
    row, careful = read_row(3, Raw(7, data), Parser(limits)), carefully(monkeypatch, data, limits)
    assert repr(row.value) == repr(careful.value)
    assert (row.findings, row.fatal) == (careful.findings, careful.fatal)


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@settings(max_examples=600, deadline=None)
@given(text=records, cut=st.integers(0, 60))
def test_both_parsers_agree_on_every_record(text, cut, patched):
    data = text.encode()
    agree(patched, data)
    agree(patched, data[:cut] + data[cut + 1 :])
    agree(patched, data[:cut] + b"\xff" + data[cut:])


@settings(max_examples=200, deadline=None)
@given(
    value=st.dictionaries(
        st.text(max_size=3),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda items: st.lists(items) | st.dictionaries(st.text(max_size=3), items),
        ),
    ),
    escaped=st.booleans(),
    digits=st.sampled_from([5, 19, 20, 400]),
)
def test_both_parsers_agree_on_what_python_writes(value, escaped, digits, patched):
    data = json.dumps(value, ensure_ascii=escaped).encode(errors="surrogatepass")
    agree(patched, data, Limits(digits=digits))


@pytest.mark.parametrize("spaced", ['"a":', '"a" :', '"a"\t:', '"\\u0061" \r\n :'])
def test_a_key_that_occurs_twice_is_never_missed(spaced):
    # A colon more in a text and a key less in the value must not make up for each other.
    for first, content in product(('"a":', '"a" :'), ("", ":", '\\":', '\\" :', "::")):
        assert plain(f'{{{first} "{content}", "b": "{content}", {spaced} "x"}}'.encode(), LIMITS) is None


def test_the_rows_that_people_have_take_the_fast_way():
    turn = {"role": "user", "content": 'He said: "no: \u00e9", at 10:30 {"a": 1}'}
    row = {"id": 17, "prompt": [turn], "chosen": "yes", "rejected": None, "tie": False}
    for text in (
        json.dumps(row),
        json.dumps(row, ensure_ascii=False),
        json.dumps(row, separators=(",", ":")),
    ):
        # The quoted key and colon in the content look like one more key: only then the careful parser is asked.
        assert plain(text.encode(), Limits()) is None
        assert plain(text.replace('{\\"a\\": 1}', "").encode(), Limits()) == {
            **row,
            "prompt": [{**turn, "content": 'He said: "no: \u00e9", at 10:30 '}],
        }


def test_depth_counts_for_both():
    limits = Limits(nesting=100)
    for depth in (99, 100, 101, 400, 2000):
        data = b'{"a": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
        row = read_row(0, Raw(1, data), Parser(limits))
        assert row.fatal == (depth > 100)
        assert (plain(data, limits) is None) == (depth > 100)
