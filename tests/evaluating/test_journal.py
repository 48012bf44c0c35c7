"""What is answered once is not asked again."""

from pathlib import Path

import pytest

from millrace.evaluating.asking import Answer, Failure, Journal, Options, Target
from millrace.evaluating.asking.journal import fingerprint
from tests.evaluating.examples import TARGET, labelled, make_dataset

CAT = Answer(label="cat")
FINAL = Failure(code="INVALID_ARGUMENT", reason="INVALID_REQUEST", message="no")
PASSING = Failure(code="INTERNAL", reason="MODEL_FAILED", message="broken")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "below" / "journal.jsonl"


def test_the_next_start_knows_the_answers(path: Path) -> None:
    with Journal(path, "m") as first:
        first.keep("a", CAT)
        first.keep("b", FINAL)
    with Journal(path, "m") as second:
        assert second.outcomes == {"a": CAT, "b": FINAL}
        assert [second.is_due(name) for name in "abc"] == [False, False, True]


def test_a_failure_that_may_pass_is_asked_again_as_another_job(path: Path) -> None:
    with Journal(path, "m") as first:
        named = first.job_id("a")
        first.keep("a", PASSING)
    with Journal(path, "m") as second:
        assert second.is_due("a")
        assert second.job_id("a") != named
        second.keep("a", CAT)
        assert not second.is_due("a")
    with Journal(path, "m") as third:
        assert third.outcomes == {"a": CAT}


def test_a_job_that_was_under_way_has_the_same_name_at_the_next_start(path: Path, tmp_path: Path) -> None:
    with Journal(path, "m") as first:
        named = first.job_id("a")
    with Journal(path, "m") as second, Journal(tmp_path / "other", "m") as other:
        assert second.job_id("a") == named != other.job_id("a")
        assert len(named) <= 60


def test_a_line_that_was_cut_is_cut_off(path: Path) -> None:
    with Journal(path, "m") as first:
        first.keep("a", CAT)
        first.keep("b", CAT)
    path.write_bytes(path.read_bytes()[:-5])
    with Journal(path, "m") as second:
        assert set(second.outcomes) == {"a"}
        second.keep("c", CAT)
    with Journal(path, "m") as third:
        assert set(third.outcomes) == {"a", "c"}


def test_a_head_that_was_cut_is_written_anew(path: Path) -> None:
    with Journal(path, "m"):
        pass
    path.write_bytes(path.read_bytes()[:10])
    with Journal(path, "m") as second:
        second.keep("a", CAT)
    with Journal(path, "m") as third:
        assert set(third.outcomes) == {"a"}


def test_answers_of_something_else_are_refused_and_left_alone(path: Path) -> None:
    with Journal(path, "m") as first:
        first.keep("a", CAT)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="other data"), Journal(path, "n"):
        pass
    assert path.read_bytes() == before
    with Journal(path, "n", fresh=True) as fresh:
        assert fresh.outcomes == {}


def test_what_is_no_journal_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"some": "file"}\n')
    with pytest.raises(ValueError, match="is no journal"), Journal(path, "m"):
        pass


def test_two_cannot_write_at_once(path: Path) -> None:
    with (
        Journal(path, "m"),
        pytest.raises(ValueError, match="another evaluation"),
        Journal(path, "m"),
    ):
        pass


def test_whatever_answers_depend_on_is_in_the_fingerprint() -> None:
    dataset = make_dataset(labelled("cat"))
    usual = fingerprint(TARGET, dataset, Options())
    other = Target(model="animals", version="2", task="text-classification", digest="d9")
    assert usual == fingerprint(TARGET, dataset, Options(timeout_s=3))
    assert (
        len({usual, fingerprint(other, dataset, Options()), fingerprint(TARGET, dataset, Options(max_tokens=3))}) == 3
    )
