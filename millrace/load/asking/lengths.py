"""Lengths and token ids, drawn for each request by its number alone, whichever process asks."""

from random import Random

from millrace.load.scenario import Length

DRAWS = 64


def draw_for(seed: int, index: int) -> Random:
    """The source of what a request draws."""
    return Random(f"{seed} request {index}")


def check_length(name: str, length: Length | None) -> None:
    """Raises ValueError for a spread that has no room."""
    if length is not None and not isinstance(length, int) and length.least > length.most:
        raise ValueError(f"requests.{name}: least, {length.least}, is more than most, {length.most}")


def draw_length(length: Length, draw: Random) -> int:
    """One that lies outside is drawn again, so that nothing gathers at the bounds; after `DRAWS` times, which takes
    bounds that hardly a draw meets, it is the nearer bound."""
    if isinstance(length, int):
        return length
    number = 0
    for _ in range(DRAWS):
        number = round(draw.gauss(length.mean, length.stdev))
        if length.least <= number <= length.most:
            break
    return min(max(number, length.least), length.most)


def draw_token_ids(count: int, bounds: tuple[int, int], draw: Random) -> list[int]:
    """Evenly from the first bound to below the second, at some 50 ns each: (Lemire, "Fast Random Integer Generation in
    an Interval", 2019, without the rejection, which matters for no load)."""
    low, span = bounds[0], bounds[1] - bounds[0]
    return [low + (word * span >> 32) for word in memoryview(draw.randbytes(4 * count)).cast("I")]
