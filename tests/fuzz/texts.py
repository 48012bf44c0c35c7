"""Makes bad texts of good ones: YAML by lines and values, JSON by its tree."""

import json
import random
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from tests.fuzz.mutate import mutate_bytes

VALUES = (
    *("", "~", "true", "0", "1", "-1", "7", "0.5", "1e999", "-.inf", ".nan", "9" * 30, "9" * 5_000, "0x" + "f" * 400),
    *("1:2:3", "1" + ":59" * 2_000, "2001-99-99", "2001-12-14t21:59:43.10-05:00", "!!binary 'x'", "!!timestamp 'x'"),
    *("[]", "{}", "[1, 2, 3]", "{a: 1}", "{1: {2: 3}}", "'text'", '"\\0"', "'" + "x" * 10_000 + "'", "'ü 数据'"),
    *("!!python/object/apply:os.system ['false']", "!!python/name:os.system", "!!python/object:os.x {}", "!x y"),
    *("!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]", "!!float '1'", "!!int '1'", "!!str 1", "!!bool x", "!!null x"),
    *("&a [*a]", "*nobody", "&a {b: *a}", "[" * 50 + "]" * 50, "{a: " * 50 + "}" * 50, "[" * 3_000, "- " * 500),
    *(
        "../../secret",
        "/etc/passwd",
        "model.onnx/..",
        ".",
        "C:\\x",
        "'a\\0b'",
        "batch",
        "generation",
        "nonesuch",
        "|",
        ">-",
    ),
)
"""What YAML takes for a value, and what it should not."""
MOST_ALIASES = 40


def billion(levels: int, width: int = 10) -> str:
    """Lists of lists, each of the one before: `width` to the power of `levels` entries, in a line for each level."""
    lists = [f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * width)}]" for level in range(1, levels)]
    return "\n  ".join(["l0: &l0 [x]", *lists])


def mutate_yaml(dice: random.Random, samples: Sequence[bytes]) -> bytes:
    data = dice.choice(samples)
    for _ in range(dice.choice((1, 1, 2, 3))):
        if dice.random() < 0.2:
            data = mutate_bytes(dice, data, dice.choice(samples))
        else:
            data = "\n".join(_change_lines(dice, data.decode(errors="replace").split("\n"))).encode()
    return data.decode(errors="replace").encode("utf-16") if dice.random() < 0.01 else data


def _change_lines(dice: random.Random, lines: list[str]) -> list[str]:
    at = dice.randrange(len(lines))
    key, colon, _ = lines[at].partition(":")
    change = dice.randrange(9)
    if change <= 3 and colon:
        lines[at] = f"{key}: {dice.choice(VALUES)}"
    elif change == 4:
        lines.insert(at, lines[dice.randrange(len(lines))])
    elif change == 5:
        del lines[at]
    elif change == 6:
        lines[at] = dice.choice((" ", "  ", "\t", "- ", "? ", "--- ", "... ", "%YAML 9.9 ", "# ", "<<: ")) + lines[at]
    elif change == 7:
        lines.append(f"engine_options:\n  {billion(dice.randrange(2, 12), dice.choice((2, 9, 10)))}")
    else:
        lines.append(f"{dice.choice(('more', 'engine_options', 'graphs', 'batching', '<<'))}: {dice.choice(VALUES)}")
    return lines or [""]


VALUES_OF_JSON: Sequence[Any] = (
    *(None, True, False, 0, 1, 2, -1, 3.5, 1e308, float("nan"), float("inf"), 2**31, 2**32, 2**63, 2**64, 10**40),
    *(
        "",
        "x",
        ".",
        "..",
        "../secret",
        "/etc/passwd",
        "a\0b",
        "model.onnx",
        "%d",
        "%s",
        "%d%d",
        "%999999999d",
        "%%",
        "ü",
    ),
    *("x" * 10_000, [], {}, [None], [[]], [2**32], [-1], {"": 0}, {"%d": "%d"}),
)
DIGITS = "9" * 5_000


def mutate_json(dice: random.Random, samples: Sequence[bytes]) -> bytes:
    data = dice.choice(samples)
    if dice.random() < 0.15:
        return mutate_bytes(dice, data, dice.choice(samples))
    document = json.loads(data)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        _change_tree(dice, document)
    text = json.dumps(document)
    if dice.random() < 0.05:
        text = text.replace("12345678", dice.choice((DIGITS, "1e999", "-0", "[" * 100_000)))
    return text.encode()


def _change_tree(dice: random.Random, document: Any) -> None:
    """Walks down to somewhere, and changes what is there."""
    while True:
        keys: Sequence[Any] = list(document) if isinstance(document, dict) else range(len(document))
        if not keys:
            return
        key = dice.choice(keys)
        inner = document[key]
        if not isinstance(inner, dict | list) or not inner or dice.random() < 0.15:
            break
        document = inner
    change = dice.randrange(6)
    if change == 0:
        del document[key]
    elif change == 1 and isinstance(document, dict):
        document[dice.choice(("", "x", f"{key} ", f"{key}s"))] = document.pop(key)
    elif change == 2:
        document[key] = 12345678
    elif change == 3:
        document[key] = nest(
            dice.choice((1, 2, 40, 300)), dice.choice((document[key], "x")), listed=dice.random() < 0.5
        )
    else:
        document[key] = deepcopy(dice.choice(VALUES_OF_JSON))


def nest(depth: int, value: Any, *, listed: bool) -> Any:
    for _ in range(depth):
        value = [value] if listed else {"type": value}
    return value
