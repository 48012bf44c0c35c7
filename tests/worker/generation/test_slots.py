from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from services.worker.generation.slots import Move, SlotTable, moves_after_leaving


@dataclass(eq=False)
class Guest:
    """Somebody with something in the cache, or nothing yet."""

    name: int
    filled: bool = False


@given(actions=st.lists(st.tuples(st.sampled_from(["join", "fill", "promote", "leave"]), st.integers(0, 99))))
def test_each_sequence_finds_its_cache_where_it_stands_whoever_joins_and_leaves(
    actions: list[tuple[str, int]],
) -> None:
    table, cache, arrivals = SlotTable[Guest](), dict[int, Guest](), 0
    for action, number in actions:
        waiting = table.occupants[table.decoding :]
        if action == "join":
            table.join(Guest(arrivals))
            arrivals += 1
        elif action == "fill" and waiting:
            waiting[0].filled = True
            cache[table.decoding] = waiting[0]
        elif action == "promote" and waiting and waiting[0].filled:
            table.promote(1)
        elif action == "leave" and len(table):
            for move in table.leave(table.occupants[number % len(table)]):
                if table.occupants[move.target].filled:
                    cache[move.target] = cache[move.source]
        assert all(cache[slot] is guest for slot, guest in enumerate(table.occupants) if guest.filled)
        assert all(guest.filled for guest in table.occupants[: table.decoding])
        names = [guest.name for guest in table.occupants[table.decoding :]]
        assert names == sorted(names)


@given(decoding=st.integers(0, 6), prefilling=st.integers(0, 6), leaving=st.integers(0, 99))
def test_moves_close_the_gap_and_never_write_to_a_slot_that_is_still_needed(
    decoding: int, prefilling: int, leaving: int
) -> None:
    occupied = decoding + prefilling
    if not occupied:
        return
    slot = leaving % occupied
    free = {slot}
    for move in moves_after_leaving(slot, decoding=decoding, occupied=occupied):
        assert move.target in free
        free = free - {move.target} | {move.source}
    assert free == {occupied - 1}


def test_a_leaving_sequence_is_replaced_by_the_last_decoding_one_and_that_by_the_first_prefilling_one() -> None:
    assert moves_after_leaving(1, decoding=4, occupied=6) == [Move(3, 1), Move(4, 3), Move(5, 4)]


def test_the_last_decoding_sequence_leaves_without_a_move_when_nobody_prefills() -> None:
    assert moves_after_leaving(3, decoding=4, occupied=4) == []
