"""Traces, and what is wrong with them."""

from itertools import islice
from pathlib import Path

import pytest

from millrace.load.trace import Row, read_trace

ROWS = [
    Row(arrival_s=0, prompt_tokens=12, output_tokens=3),
    Row(arrival_s=0.5, prompt_tokens=None, output_tokens=4),
]


def write(folder: Path, text: str) -> Path:
    path = folder / "trace"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        "arrival_s,prompt_tokens,output_tokens\n0,12,3\n0.5,,4\n",
        "\ufeffoutput_tokens, arrival_s ,prompt_tokens\r\n3,0.0,12\r\n\r\n4,5e-1,\r\n",
        '{"arrival_s": 0, "prompt_tokens": 12, "output_tokens": 3}\n\n{"arrival_s": 0.5, "output_tokens": 4}\n',
    ],
)
def test_csv_and_json_lines_say_the_same(tmp_path: Path, text: str) -> None:
    assert list(read_trace(write(tmp_path, text))) == ROWS


def test_lengths_may_be_left_out(tmp_path: Path) -> None:
    (row,) = read_trace(write(tmp_path, "arrival_s\n3\n"))
    assert row == Row(arrival_s=3, prompt_tokens=None, output_tokens=None)


def test_it_is_read_only_as_far_as_it_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "arrival_s\n1\n2\nthis is not reached\n")
    assert [row.arrival_s for row in islice(read_trace(path), 2)] == [1, 2]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("arrival_s\n2\n1\n", r"line 3: arrival_s 1 comes after 2"),
        ("arrival_s\n-1\n", r"line 2: arrival_s must be seconds from 0 on, not '-1'"),
        ("arrival_s\n1e999\n", r"line 2: arrival_s must be"),
        ("arrival_s\nnan\n", r"line 2: arrival_s must be"),
        ("arrival_s\nsoon\n", r"line 2: .*soon"),
        ("arrival_s,prompt_tokens\n1\n", r"line 2: 1 cells under 2 columns"),
        ("arrival_s,prompt_tokens\n1,0\n", r"line 2: prompt_tokens must be a whole number"),
        ("arrival_s,output_tokens\n1,2.5\n", r"line 2: output_tokens must be a whole number"),
        ("arrival_s,output_tokens\n1,99999999999\n", r"line 2: output_tokens must be a whole number"),
        ("time,prompt\n1,2\n", r"line 1: 'time' is unknown: a trace has arrival_s, prompt_tokens, output_tokens"),
        ("prompt_tokens\n1\n", r"line 1: arrival_s is missing"),
        ("arrival_s,arrival_s\n1,1\n", r"line 1: a column is there twice"),
        ('{"arrival_s": 1}\n{"arrival_s": true}\n', r"line 2: arrival_s must be"),
        ('{"arrival_s": 1}\n{"arrival_s": [1]}\n', r"line 2: arrival_s must be"),
        ('{"arrival_s": 1, "prompt_tokens": 2.0}\n', r"line 1: prompt_tokens must be"),
        ('{"arrival_s": 1}\n{"arrival_s": 2\n', r"line 2: "),
        ('{"arrival_s": 1}\n[3]\n', r"line 2: no JSON object"),
        ("arrival_s\n" + "1" * 200_000, "line 2: field larger"),
        ("", "holds no requests"),
        ("arrival_s\n\n", "holds no requests"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        list(read_trace(write(tmp_path, text)))


def test_bytes_that_are_no_text_are_an_error_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(b"arrival_s\n1\n\xff\x00\n")
    with pytest.raises(ValueError, match="line 3"):
        list(read_trace(path))
