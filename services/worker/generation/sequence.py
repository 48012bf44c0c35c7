"""One job in the engine: its tokens, its limits, and what each further token adds to its text."""

from collections import deque
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import numpy.typing as npt

from services.worker.generation.rows import Sampling
from services.worker.generation.stops import StopMatcher
from services.worker.generation.text import Detokenizer


class Finish(Enum):
    """Why a completion ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """When a completion ends. `max_tokens` is already within the context."""

    max_tokens: int
    min_tokens: int = 0
    stop_strings: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    """End-of-sequence tokens, unless they are ignored, and the request's own."""
    include_stop_string: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A request that can be run."""

    lease: str
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    stopping: Stopping


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """What the results log holds of a completion."""

    text: str = ""
    token_ids: tuple[int, ...] = ()
    finished: bool = False


@dataclass(slots=True, kw_only=True)
class Delta:
    """What is new since the last one."""

    text: str
    token_ids: tuple[int, ...] = ()
    finish: Finish | None = None
    stop_match: str = ""


class LogMismatch(Exception):
    """The log's text is not what its tokens give: it was written with another tokenizer."""


@dataclass(slots=True, eq=False)
class Sequence:
    """Prefills `token_ids`, then takes one token after the other until a delta says that it has finished."""

    task: Task
    detokenizer: Detokenizer
    token_ids: npt.NDArray[np.int64] = field(init=False)
    """What is prefilled: the prompt, and what the log holds of the completion, unless that is replayed."""
    prefilled: int = field(init=False, default=0)
    """How many of them are in the cache, or planned to be at the end of this step."""
    replay: deque[int] = field(init=False, default_factory=deque)
    """Tokens of the completion that are to be decoded again: each is the next one where else it would be drawn."""
    completion_tokens: int = field(init=False, default=0)
    last: Delta | None = field(init=False, default=None)
    """The delta that ended it."""
    _matcher: StopMatcher = field(init=False)
    _unsent: str = field(init=False, default="")

    def __post_init__(self) -> None:
        stopping = self.task.stopping
        self.token_ids = np.array(self.task.prompt_ids, np.int64)
        self._matcher = StopMatcher(stopping.stop_strings, include=stopping.include_stop_string)

    @property
    def cost(self) -> int:
        return len(self.task.prompt_ids) + self.completion_tokens

    @property
    def position(self) -> int:
        """Which token of the completion the model gives next, from 0."""
        return self.completion_tokens - len(self.replay)

    @property
    def filled(self) -> int:
        """Positions in the cache: the newest token is not among them."""
        if self.prefilled < len(self.token_ids):
            return self.prefilled
        return max(self.prefilled, len(self.task.prompt_ids) + self.position - 1)

    @property
    def banned(self) -> Ordered[int]:
        """Token ids that must not be drawn next, because the completion is too short to end."""
        stopping = self.task.stopping
        return stopping.stop_ids if self.completion_tokens < stopping.min_tokens else ()

    def resume(self, logged: Logged, *, replay: bool) -> None:
        """Takes the logged tokens as its own, to be prefilled behind the prompt or replayed. Text that they give and
        the log lacks goes with the next delta. Where they end the completion, `last` is set. Raises `LogMismatch`."""
        text = ""
        for token_id in logged.token_ids:
            text += self.accept(token_id).text
            if self.last is not None:
                break
        if not text.startswith(logged.text):
            raise LogMismatch
        self._unsent = text[len(logged.text) :]
        if replay:
            self.replay.extend(logged.token_ids)
        else:
            self.token_ids = np.array(self.task.prompt_ids + logged.token_ids, np.int64)
        if self.last is not None:
            self.last = Delta(text=self._unsent, finish=self.last.finish, stop_match=self.last.stop_match)

    def accept(self, token_id: int) -> Delta:
        """The next token of the completion, and what it adds."""
        self.completion_tokens += 1
        delta = self._advance(token_id)
        if self._unsent:
            delta.text, self._unsent = self._unsent + delta.text, ""
        if delta.finish is not None:
            self.last = delta
        return delta

    def _advance(self, token_id: int) -> Delta:
        stopping = self.task.stopping
        if token_id in stopping.stop_ids and self.completion_tokens > stopping.min_tokens:
            return self._finish("", token_id, Finish.STOP)
        armed = self.completion_tokens >= stopping.min_tokens
        text, match = self._matcher.push(self.detokenizer.push(token_id), armed=armed)
        if match:
            return Delta(text=text, token_ids=(token_id,), finish=Finish.STOP, stop_match=match)
        if self.completion_tokens >= stopping.max_tokens:
            return self._finish(text, token_id, Finish.LENGTH)
        return Delta(text=text, token_ids=(token_id,))

    def _finish(self, text: str, token_id: int, finish: Finish) -> Delta:
        """Ends it with all text that waits, in which a stop string may still complete."""
        tail, match = self._matcher.push(self.detokenizer.flush())
        if match:
            return Delta(text=text + tail, token_ids=(token_id,), finish=Finish.STOP, stop_match=match)
        return Delta(text=text + tail + self._matcher.flush(), token_ids=(token_id,), finish=finish)
