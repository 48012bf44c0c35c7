"""An event loop in a thread of its own, on which callers of other threads run an asynchronous client's calls.

A caller waits for its call in `call`; where the wait is interrupted, by Ctrl-C for example, the call is cancelled. The
thread is started by the first call. Closing cancels the calls that still run, leaves the streams that are open, closes
the client and ends the thread.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Stream(Generic[T]):
    """An asynchronous generator, one step at a time: closing waits for a step that is being cancelled."""

    def __init__(self, results: AsyncGenerator[T, None]) -> None:
        self._results = results
        self._turn = asyncio.Lock()

    async def next(self) -> T:
        """Raises StopAsyncIteration."""
        async with self._turn:
            return await anext(self._results)

    async def close(self) -> None:
        async with self._turn:
            await self._results.aclose()


class LoopThread:
    """Runs calls while `client` is open. Usable from every thread but the loop's own."""

    def __init__(self, client: AbstractAsyncContextManager[object]) -> None:
        self._client = client
        # Reentrant: the garbage collector may end a stream, which is a call, in a thread that is just making one.
        self._lock = threading.RLock()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._streams: set[Stream[Any]] = set()

    def call(self, work: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What the work answers. Raises what it raises, and RuntimeError where the client is, or is being, closed."""
        answer: Future[T] = Future()  # There before the call is, so that no interruption falls between the two.
        try:
            self._submit(answer, work, *args, **kwargs)
            return answer.result()
        except CancelledError:
            raise RuntimeError("the client was closed during the call") from None
        except BaseException:
            answer.cancel()
            raise

    def iterate(self, results: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """Each result. A generator that is left before its end closes `results`, and returns when that is done."""
        stream = Stream(results)
        self._streams.add(stream)
        try:
            while True:
                yield self.call(stream.next)
        except StopAsyncIteration:
            pass
        finally:
            self._leave(stream)

    def close(self) -> None:
        """Returns when the thread has ended."""
        with self._lock:
            self._closed, loop, thread = True, self._loop, self._thread
        if loop is None or thread is None:
            return
        _call_soon(loop, self._stop.set)
        if thread is not threading.current_thread():
            thread.join()

    def _submit(
        self, answer: Future[T], work: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Has the loop do the work and settle the answer; whoever cancels that cancels the work."""

        async def run() -> T:
            return await work(*args, **kwargs)

        def begin() -> None:
            task = asyncio.create_task(run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(partial(_settle, answer))
            answer.add_done_callback(lambda done: _call_soon(loop, task.cancel) if done.cancelled() else None)

        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            loop = self._loop or self._start()
            loop.call_soon_threadsafe(begin)

    def _leave(self, stream: Stream[Any]) -> None:
        """In whichever thread the garbage collector found the generator, the loop's own among them."""
        self._streams.discard(stream)
        with suppress(RuntimeError):  # The client is closed, and so are its streams.
            if self._thread is threading.current_thread():
                self._submit(Future(), stream.close)
            else:
                self.call(stream.close)

    def _start(self) -> asyncio.AbstractEventLoop:
        opened: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="millrace-client", daemon=True)
        self._thread.start()
        self._loop = opened.result()
        return self._loop

    def _run(self, opened: Future[asyncio.AbstractEventLoop]) -> None:
        try:
            asyncio.run(self._serve(opened))
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)

    async def _serve(self, opened: Future[asyncio.AbstractEventLoop]) -> None:
        async with self._client:
            opened.set_result(asyncio.get_running_loop())
            await self._stop.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.gather(*(stream.close() for stream in list(self._streams)), return_exceptions=True)


def _settle(answer: Future[T], task: asyncio.Task[T]) -> None:
    with suppress(InvalidStateError):  # Its caller was interrupted meanwhile.
        if task.cancelled():
            answer.cancel()
        elif (error := task.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(task.result())


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # The loop has ended.
        loop.call_soon_threadsafe(function)
