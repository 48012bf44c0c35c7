"""Compiles a grammar in another process first, to see what it costs.

llguidance bounds most of its work, but not all: it intersects the patterns of a schema for as long as that takes, and
follows definitions by recursion until the stack ends. A caller's grammar must do neither to a worker. So a process of
little memory and a small stack, whose processor time is counted, compiles each one and follows it for some tokens; what
ends that process is refused.

    python -P trial.py      reads a vocabulary and then grammars, each behind its size; answers each grammar with a byte
"""

import json
import os
import random
import resource
import select
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass

import psutil
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

PROCESSOR_S = 1
"""At least that, and at most a second more."""
WAIT_S = 30.0
"""On a machine whose processors are taken."""
MEMORY_BYTES = 128 << 20
"""Of address space, above what the process begins with."""
STACK_BYTES, LARGE_STACK_BYTES = 2 << 20, 64 << 20
"""Of a trial, and of the compilation behind it."""
FOLLOWED_TOKENS = 32
POLITENESS = 5
SIZE = struct.Struct("=I")
_stack_size = threading.Lock()
SILENT = 0
LIMITS = LLParserLimits(
    max_items_in_row=2_000,
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=20_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)


def start(tokenizer: LLTokenizer, grammar: str, *, stack_bytes: int = LARGE_STACK_BYTES) -> LLMatcher:
    """A matcher that knows what may come first, or is in error. `grammar`: as llguidance serialises it."""
    with ThreadPoolExecutor(1) as thread:
        with _stack_size:
            usual = threading.stack_size(stack_bytes)
            started = thread.submit(_start, tokenizer, grammar)
            threading.stack_size(usual)
        return started.result()


def _start(tokenizer: LLTokenizer, grammar: str) -> LLMatcher:
    matcher = LLMatcher(tokenizer, grammar, log_level=SILENT, limits=LIMITS)
    if not matcher.is_error():
        matcher.compute_bitmask()
    return matcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The vocabulary that texts are made of."""

    tokenizer: str
    """tokenizer.json, as llguidance can read it."""
    size: int
    end: int
    """The token that ends a text."""

    def load(self) -> LLTokenizer:
        """Raises ValueError, and Rust's panics."""
        return LLTokenizer(self.tokenizer, n_vocab=self.size, eos_token=self.end)


class Trial:
    """The other process, started when it is first needed and again when it has died."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: Callable[[], object] = lambda: None

    def survives(self, grammar: str) -> bool:
        """Whether it can be compiled, be it to an error, within the bounds. Raises OSError where no process can be
        started."""
        with self._lock:
            was_used = self._process is not None
            return self._answers(grammar) or (was_used and self._answers(grammar))

    def _answers(self, grammar: str) -> bool:
        process = self._process or self._begin()
        try:
            answered = _ask(process, grammar)
        except OSError:
            answered = False
        if not answered:
            self._process = None
            self._end()
        return answered

    def _begin(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-P", __file__]
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        one_arena = {**os.environ, "MALLOC_ARENA_MAX": "1"}
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=nothing, env=one_arena, start_new_session=True
        )
        self._process, self._end = process, weakref.finalize(self, _end, process)
        _write(process, json.dumps(asdict(self._words)))
        return process


def _write(process: "subprocess.Popen[bytes]", text: str) -> None:
    assert process.stdin is not None
    body = text.encode()
    process.stdin.write(SIZE.pack(len(body)) + body)
    process.stdin.flush()


def _read() -> str | None:
    head = sys.stdin.buffer.read(SIZE.size)
    return sys.stdin.buffer.read(*SIZE.unpack(head)).decode() if head else None


def _ask(process: "subprocess.Popen[bytes]", grammar: str) -> bool:
    assert process.stdout is not None
    _write(process, grammar)
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    return bool(poll.poll(WAIT_S * 1000)) and len(os.read(process.stdout.fileno(), 1)) == 1


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None and not pipe.closed:
            with suppress(OSError):
                pipe.close()


def _follow(matcher: LLMatcher) -> None:
    dice = random.Random(0)
    for _ in range(FOLLOWED_TOKENS):
        mask = matcher.compute_bitmask()
        at = dice.randrange(len(mask))
        turned = mask[at:] + mask[:at]
        found = turned.lstrip(b"\0")
        if matcher.is_stopped() or not found:
            break
        lowest = (found[0] & -found[0]).bit_length() - 1
        matcher.try_consume_tokens([(at + len(turned) - len(found)) % len(turned) * 8 + lowest])


def main() -> None:
    os.nice(POLITENESS)
    tokenizer = Words(**json.loads(_read() or "{}")).load()
    most_held = psutil.Process().memory_info().vms + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most_held, most_held))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    while grammar := _read():
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + PROCESSOR_S, most))
        _follow(start(tokenizer, grammar, stack_bytes=STACK_BYTES))
        sys.stdout.buffer.write(b".")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
