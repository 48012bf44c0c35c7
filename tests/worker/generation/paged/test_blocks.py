import numpy as np
import pytest

from services.worker.generation.paged.blocks import ROOT, BlockPool, chain

A, B, C = (bytes([letter]) * 16 for letter in b"abc")


def test_a_block_that_nobody_has_any_more_is_found_until_it_is_taken_again() -> None:
    pool = BlockPool(2)
    (block,) = pool.take(1)
    pool.name(block, A)
    pool.release([block])
    assert pool.find(A) == block
    pool.share([block])
    pool.release([block])
    pool.take(2)
    assert pool.find(A) is None


def test_what_cannot_be_found_is_taken_first_and_then_what_was_not_used_for_longest() -> None:
    pool = BlockPool(4)
    first, second, third = pool.take(3)
    for block, text in ((first, A), (second, B)):
        pool.name(block, text)
        pool.release([block])
    pool.release([third])
    pool.share([first])
    pool.release([first])
    assert pool.take(1) == [third]
    assert pool.take(1) == [3]
    assert pool.take(2) == [second, first]


def test_the_end_of_a_text_is_taken_before_its_beginning() -> None:
    pool = BlockPool(3)
    blocks = pool.take(3)
    for block, text in zip(blocks, (A, B, C), strict=True):
        pool.name(block, text)
    pool.release(blocks)
    assert pool.take(3) == blocks[::-1]


def test_a_block_is_free_when_the_last_row_has_released_it() -> None:
    pool = BlockPool(1)
    (block,) = pool.take(1)
    pool.share([block])
    pool.release([block])
    assert pool.free == 0
    pool.release([block])
    assert pool.free == 1


def test_more_blocks_than_are_free_are_not_given() -> None:
    pool = BlockPool(2)
    pool.take(1)
    with pytest.raises(IndexError, match="2 blocks are more than the 1"):
        pool.take(2)
    assert pool.free == 1


def test_of_two_blocks_with_the_same_text_the_first_is_found_and_the_other_stays_private() -> None:
    pool = BlockPool(2)
    first, second = pool.take(2)
    pool.name(first, A)
    pool.name(second, A)
    assert pool.find(A) == first
    assert not pool.is_private(first)
    assert pool.is_private(second)


def test_a_shared_block_is_not_private() -> None:
    pool = BlockPool(1)
    (block,) = pool.take(1)
    assert pool.is_private(block)
    pool.share([block])
    assert not pool.is_private(block)


def test_the_hash_of_a_block_depends_on_all_that_is_before_it() -> None:
    one, two = np.array([1, 2]), np.array([3, 4])
    assert chain(chain(ROOT, one), two) != chain(chain(ROOT, two), two)
    assert chain(chain(ROOT, one), two) != chain(ROOT, two)
    assert chain(ROOT, one) == chain(ROOT, one.copy())
