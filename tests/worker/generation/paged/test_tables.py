"""The block table against memory that is really written to, and texts that are plain lists."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.worker.generation.paged.tables import NOBODYS, BlockTable, Copy

ROWS, LENGTH, BLOCK = 4, 24, 4
ALPHABET = st.integers(0, 1)
Text = list[int]
Cell = tuple[int, ...]
"""What a position holds: as keys and values do, it depends on all tokens up to there."""


class Tables(RuleBasedStateMachine):
    """Rows open, write, guess, fork, move and close in any order; each must find its text in its blocks, and none may
    write where another reads or could come to read."""

    @initialize(blocks=st.integers(4, 14))
    def begin(self, blocks: int) -> None:
        self.table = BlockTable(ROWS, LENGTH, blocks=blocks, block_size=BLOCK)
        self.memory: dict[int, list[Cell]] = {block: [()] * BLOCK for block in range(blocks + 1)}
        self.texts: dict[int, Text] = {}

    @rule(row=st.integers(0, ROWS - 1), text=st.lists(ALPHABET, max_size=LENGTH), is_kept=st.booleans())
    def open(self, row: int, text: Text, is_kept: bool) -> None:
        if row in self.texts or not text:
            return
        hit = self.table.open(row, np.array(text if is_kept else [], np.int64))
        assert hit % BLOCK == 0
        assert hit < len(text)
        self.texts[row] = text[:hit]
        self.write(row, text[hit:])

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), token_ids=st.lists(ALPHABET, min_size=1, max_size=2 * BLOCK))
    def prefill(self, data: st.DataObject, token_ids: Text) -> None:
        self.write(data.draw(st.sampled_from(sorted(self.texts))), token_ids)

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), token_ids=st.lists(ALPHABET, min_size=1, max_size=2 * BLOCK), right=st.integers(0, 2 * BLOCK))
    def guess(self, data: st.DataObject, token_ids: Text, right: int) -> None:
        row = data.draw(st.sampled_from(sorted(self.texts)))
        before = len(self.texts[row])
        if self.write(row, token_ids, is_final=False):
            del self.texts[row][before + right :]

    @precondition(lambda self: 0 in self.texts)
    @rule(token_ids=st.lists(ALPHABET, min_size=ROWS, max_size=ROWS))
    def decode(self, token_ids: Text) -> None:
        count = next((row for row in range(ROWS) if row not in self.texts), ROWS)
        if not all(self.reserve(row, len(self.texts[row]) + 1) for row in range(count)):
            return
        filled = np.array([len(self.texts[row]) for row in range(count)], np.int32)
        for row in range(count):
            self.store(row, token_ids[row : row + 1])
        self.table.wrote_each(filled, np.array(token_ids[:count], np.int64))

    @precondition(lambda self: 0 < len(self.texts) < ROWS)
    @rule(data=st.data(), length=st.integers(0, LENGTH))
    def fork(self, data: st.DataObject, length: int) -> None:
        source, target = self.pick(data)
        length = min(length, len(self.texts[source]))
        self.table.fork(source, target, length)
        self.texts[target] = self.texts[source][:length]

    @precondition(lambda self: 0 < len(self.texts) < ROWS)
    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        source, target = self.pick(data)
        self.table.move(source, target)
        self.texts[target] = self.texts.pop(source)

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.texts)))
        self.table.close(row)
        del self.texts[row]

    @invariant()
    def every_row_finds_its_text(self) -> None:
        for row, text in getattr(self, "texts", {}).items():
            found = [cell for block in self.table.entries[row].tolist() for cell in self.memory[block]]
            assert found[: len(text)] == [tuple(text[: end + 1]) for end in range(len(text))]

    @invariant()
    def each_block_is_free_or_has_as_many_references_as_rows(self) -> None:
        if not hasattr(self, "table"):
            return
        rows = Counter(block for row in range(ROWS) for block in self.table.blocks(row))
        pool = self.table.pool
        assert rows == +Counter(pool._references)
        assert pool.free == pool.count - len(rows)
        assert NOBODYS not in rows
        assert all(self.table.blocks(row) == () for row in range(ROWS) if row not in self.texts)

    def teardown(self) -> None:
        if hasattr(self, "table"):
            for row in range(ROWS):
                self.table.close(row)
            assert self.table.pool.free == self.table.pool.count
            assert not self.table.entries.any()

    def write(self, row: int, token_ids: Text, *, is_final: bool = True) -> bool:
        start = len(self.texts[row])
        if not self.reserve(row, start + len(token_ids)):
            return False
        self.store(row, token_ids)
        self.table.wrote(row, start, np.array(token_ids, np.int64), is_final=is_final)
        return True

    def reserve(self, row: int, length: int) -> bool:
        before = (self.table.entries.copy(), self.table.pool.free)
        copies = self.table.reserve(row, length)
        if copies is None:
            assert (self.table.entries == before[0]).all()
            assert self.table.pool.free == before[1]
            return False
        for copy in copies:
            self.memory[copy.target] = self.memory[copy.source].copy()
        return True

    def store(self, row: int, token_ids: Text) -> None:
        """What the graph does."""
        for token_id in token_ids:
            position, self.texts[row] = len(self.texts[row]), [*self.texts[row], token_id]
            block = int(self.table.entries[row, position // BLOCK])
            assert self.table.pool.is_private(block)
            self.memory[block][position % BLOCK] = tuple(self.texts[row])

    def pick(self, data: st.DataObject) -> tuple[int, int]:
        source = data.draw(st.sampled_from(sorted(self.texts)))
        return source, data.draw(st.sampled_from(sorted(set(range(ROWS)) - self.texts.keys())))


TestTables = Tables.TestCase
TestTables.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def table(blocks: int = 8) -> BlockTable:
    return BlockTable(ROWS, LENGTH, blocks=blocks, block_size=BLOCK)


def write(into: BlockTable, row: int, text: Text) -> int:
    token_ids = np.array(text, np.int64)
    hit = into.open(row, token_ids)
    assert into.reserve(row, len(text)) == []
    into.wrote(row, hit, token_ids[hit:])
    return hit


def test_a_text_that_begins_as_another_takes_its_full_blocks_and_never_all_tokens() -> None:
    shared = table()
    write(shared, 0, list(range(10)))
    assert write(shared, 1, [*range(9), 99]) == 8
    assert shared.blocks(1)[:2] == shared.blocks(0)[:2]
    assert write(shared, 2, list(range(8))) == 4
    assert (shared.hit_tokens, shared.queried_tokens) == (12, 28)


def test_blocks_are_found_after_the_row_has_gone_and_also_what_was_decoded_into_them() -> None:
    shared = table()
    write(shared, 0, [1, 2, 3])
    for filled, token_id in ((3, 4), (4, 5)):
        assert shared.reserve(0, filled + 1) == []
        shared.wrote_each(np.array([filled], np.int32), np.array([token_id]))
    shared.close(0)
    assert shared.open(1, np.array([1, 2, 3, 4, 9])) == 4


def test_a_row_that_was_opened_without_its_text_neither_finds_nor_leaves_anything() -> None:
    shared = table()
    write(shared, 0, list(range(9)))
    assert shared.open(1, np.zeros(0, np.int64)) == 0
    shared.reserve(1, 8)
    shared.wrote(1, 0, np.arange(50, 58))
    shared.close(1)
    assert shared.open(2, np.arange(50, 59)) == 0
    assert shared.queried_tokens == 9 + 9


def test_guessed_tokens_are_not_found_before_they_have_become_final() -> None:
    shared = table()
    shared.open(0, np.arange(4))
    shared.reserve(0, 8)
    shared.wrote(0, 0, np.arange(8), is_final=False)
    assert shared.open(1, np.arange(9)) == 0
    shared.wrote(0, 6, np.array([70, 71]))
    assert shared.open(1, np.arange(9)) == 4
    assert shared.open(2, np.array([0, 1, 2, 3, 4, 5, 70, 71, 9])) == 8


def test_guesses_become_final_when_the_next_ones_begin_behind_them() -> None:
    shared = table()
    shared.open(0, np.arange(4))
    shared.reserve(0, 16)
    shared.wrote(0, 0, np.arange(8), is_final=False)
    shared.wrote(0, 7, np.arange(7, 12), is_final=False)
    assert shared.open(1, np.arange(13)) == 4


def test_forked_rows_share_their_last_block_until_one_goes_on() -> None:
    shared = table()
    write(shared, 0, list(range(6)))
    shared.fork(0, 1, 6)
    assert shared.blocks(1) == shared.blocks(0)
    assert shared.pool.count - shared.pool.free == 2
    old = shared.blocks(0)[1]
    (copy,) = shared.reserve(1, 7) or []
    assert copy == Copy(old, shared.blocks(1)[1])
    assert shared.reserve(0, 7) == []
    assert shared.blocks(0)[1] == old


def test_a_fork_within_a_block_that_others_can_find_is_copied_even_where_the_first_row_has_gone() -> None:
    shared = table()
    write(shared, 0, list(range(8)))
    shared.fork(0, 1, 6)
    shared.close(0)
    (copy,) = shared.reserve(1, 7) or []
    assert copy.source != copy.target
    assert shared.open(2, np.arange(9)) == 8


def test_a_fork_before_the_end_leaves_its_own_text_to_others() -> None:
    shared, common, one, other = table(), [0] * 4, [1] * 4, [2] * 4
    write(shared, 0, common + one)
    shared.fork(0, 1, 6)
    shared.reserve(1, 12)
    shared.wrote(1, 4, np.array(other + other))
    assert shared.open(2, np.array([*common, *one, *other, 9])) == 8
    assert shared.open(3, np.array([*common, *other, *other, 9])) == 12


def test_where_blocks_are_short_nothing_is_reserved_and_nothing_lost() -> None:
    shared = table(blocks=3)
    write(shared, 0, list(range(6)))
    shared.fork(0, 1, 6)
    assert shared.reserve(1, 9) is None
    assert shared.blocks(1) == shared.blocks(0)
    assert shared.reserve(1, 8) is not None
    assert shared.reserve(0, 9) is None
    shared.close(1)
    assert shared.reserve(0, 9) == []


def test_a_row_has_no_more_than_a_context() -> None:
    roomy = table(blocks=20)
    assert roomy.reserve(0, LENGTH) == []
    assert roomy.reserve(0, LENGTH + 1) is None
    assert roomy.pool.free == 20 - LENGTH // BLOCK


@pytest.mark.parametrize("length", [1, 23, 24, 25])
def test_the_table_is_as_wide_as_the_longest_text(length: int) -> None:
    assert BlockTable(1, length, blocks=1, block_size=8).width == -(-length // 8)
