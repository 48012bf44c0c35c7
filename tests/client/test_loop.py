"""Calls from other threads to an event loop."""

import asyncio
import signal
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from millrace.client.loop import LoopThread

NAME = "millrace-client"


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread(nullcontext())
    yield thread
    thread.close()
    assert NAME not in [one.name for one in threading.enumerate()]


class Counting:
    """Counts from 0 on, and notes that it was left."""

    def __init__(self) -> None:
        self.left_in = ""

    async def results(self) -> AsyncGenerator[int, None]:
        number = 0
        try:
            while True:
                yield number
                number += 1
        finally:
            await asyncio.sleep(0)
            self.left_in = threading.current_thread().name


async def double(number: int) -> int:
    return 2 * number


async def forever(begun: threading.Event) -> None:
    begun.set()
    await asyncio.Event().wait()


def in_thread(function: object, *arguments: object) -> "tuple[threading.Thread, list[BaseException]]":
    """Runs it in a thread of its own; the list has what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        assert callable(function)
        try:
            function(*arguments)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, raised


def test_a_call_answers_and_raises_what_its_work_does(loop: LoopThread) -> None:
    async def fail() -> None:
        raise LookupError("it")

    assert loop.call(double, number=2) == 4
    with pytest.raises(LookupError, match="it"):
        loop.call(fail)


def test_a_client_that_cannot_be_opened_says_why_each_time() -> None:
    class Broken(nullcontext[None]):
        async def __aenter__(self) -> None:
            raise OSError("no")

    thread = LoopThread(Broken())
    for _ in range(2):
        with pytest.raises(OSError, match="no"):
            thread.call(double, 1)
    thread.close()


def test_a_stream_ends_where_its_results_do(loop: LoopThread) -> None:
    async def two() -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    assert list(loop.iterate(two())) == [1, 2]


def test_a_stream_that_is_left_is_closed_before_the_caller_goes_on(loop: LoopThread) -> None:
    counting = Counting()
    for number in loop.iterate(counting.results()):
        if number == 2:
            break
    assert counting.left_in == NAME


def test_a_stream_may_be_left_in_the_loops_own_thread(loop: LoopThread) -> None:
    """As the garbage collector does."""
    counting = Counting()
    stream = loop.iterate(counting.results())
    assert next(stream) == 0

    async def leave() -> None:
        stream.close()

    loop.call(leave)
    loop.close()
    assert counting.left_in == NAME


def test_closing_leaves_open_streams(loop: LoopThread) -> None:
    counting = Counting()
    stream = loop.iterate(counting.results())
    assert next(stream) == 0
    loop.close()
    assert counting.left_in == NAME
    with pytest.raises(RuntimeError, match="closed"):
        next(stream)


def test_closing_ends_the_calls_of_other_threads(loop: LoopThread) -> None:
    begun = threading.Event()
    thread, raised = in_thread(loop.call, forever, begun)
    begun.wait()
    loop.close()
    thread.join()
    assert [str(error) for error in raised] == ["the client was closed during the call"]
    with pytest.raises(RuntimeError, match="the client is closed"):
        loop.call(double, 1)


def test_many_threads_may_call_at_once(loop: LoopThread) -> None:
    gate = asyncio.Barrier(8)

    async def together() -> None:
        await gate.wait()

    threads = [in_thread(loop.call, together) for _ in range(8)]
    for thread, raised in threads:
        thread.join(timeout=10)
        assert not thread.is_alive()
        assert raised == []


def test_a_thread_that_was_never_needed_is_not_started() -> None:
    LoopThread(nullcontext()).close()
    assert NAME not in [one.name for one in threading.enumerate()]


def test_a_wait_that_is_interrupted_cancels_its_call(loop: LoopThread) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def work() -> None:
        try:
            await forever(begun)
        finally:
            cancelled.set()

    def press() -> None:
        begun.wait()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    pressing, _ = in_thread(press)
    with pytest.raises(KeyboardInterrupt):
        loop.call(work)
    pressing.join()
    assert cancelled.wait(5)


def test_an_interruption_right_behind_the_submission_cancels_the_call() -> None:
    begun, cancelled = threading.Event(), threading.Event()

    class Interrupted(LoopThread):
        def _submit(self, *args: Any, **kwargs: Any) -> None:
            super()._submit(*args, **kwargs)
            begun.wait()
            raise KeyboardInterrupt

    async def work() -> None:
        try:
            await forever(begun)
        finally:
            cancelled.set()

    thread = Interrupted(nullcontext())
    with pytest.raises(KeyboardInterrupt):
        thread.call(work)
    assert cancelled.wait(5)
    thread.close()
