import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.generation.text.stops import StopMatcher

LETTERS = st.text("ab<", max_size=24)
STOPS = st.lists(st.text("ab<", min_size=1, max_size=5), max_size=4)


def cut(text: str, at: list[int]) -> list[str]:
    borders = [0, *sorted(min(place, len(text)) for place in at), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(borders)]


def passed(pieces: list[str], stops: list[str], *, include: bool) -> tuple[str, str]:
    matcher, text = StopMatcher(stops, include=include), ""
    for piece in pieces:
        certain, match = matcher.push(piece)
        text += certain
        if match:
            return text, match
    return text + matcher.flush(), ""


def oracle(text: str, stops: list[str], *, include: bool) -> tuple[str, str]:
    """The first place where the text ends with a stop string; the longest of those that end there."""
    for end in range(1, len(text) + 1):
        matches = [stop for stop in stops if text[:end].endswith(stop)]
        if matches:
            longest = max(matches, key=len)
            return text[: end if include else end - len(longest)], longest
    return text, ""


@given(text=LETTERS, stops=STOPS, at=st.lists(st.integers(0, 24), max_size=12), include=st.booleans())
def test_the_text_ends_where_it_would_if_it_were_searched_as_a_whole(
    text: str, stops: list[str], at: list[int], include: bool
) -> None:
    assert passed(cut(text, at), stops, include=include) == oracle(text, stops, include=include)


@given(text=LETTERS, stops=STOPS)
def test_no_more_is_held_back_than_could_become_a_match(text: str, stops: list[str]) -> None:
    matcher, sent = StopMatcher(stops, include=False), ""
    for end, character in enumerate(text, 1):
        certain, match = matcher.push(character)
        sent += certain
        if match:
            return
        prefixes = (stop[:size] for stop in stops for size in range(len(stop)))
        longest = max((len(prefix) for prefix in prefixes if text[:end].endswith(prefix)), default=0)
        assert sent == text[: end - longest]


def test_a_match_while_not_armed_is_text_and_a_later_one_counts() -> None:
    matcher = StopMatcher(["ab"], include=False)
    assert matcher.push("xab", armed=False) == ("xab", "")
    assert matcher.push("yab") == ("y", "ab")


@pytest.mark.parametrize(("include", "text"), [(True, "x</end>"), (False, "x")])
def test_the_match_stays_in_the_text_only_where_it_is_asked_for(include: bool, text: str) -> None:
    assert passed(["x<", "/en", "d>rest"], ["</end>"], include=include) == (text, "</end>")


def test_without_stop_strings_everything_passes_at_once() -> None:
    assert StopMatcher([], include=False).push("text") == ("text", "")
