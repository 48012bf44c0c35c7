"""One completion in the engine: its tokens, its limits, and what each further token adds to its text."""

from collections import deque
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from services.worker.generation.sampling.edits import Edits
from services.worker.generation.sampling.penalties import Penalties
from services.worker.generation.sampling.scorer import Score
from services.worker.generation.task import Logged, Task
from services.worker.generation.text.stops import StopMatcher
from services.worker.generation.text.vocabulary import Detokenizer


class Finish(Enum):
    """Why a completion ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(slots=True)
class Delta:
    """What one or more tokens add: `token_ids`, and whatever text they make certain."""

    text: str = ""
    token_ids: tuple[int, ...] = ()
    scores: tuple[Score, ...] = ()
    finish: Finish | None = None
    stop_match: str = ""

    def extend(self, later: "Delta") -> None:
        self.text += later.text
        self.token_ids += later.token_ids
        self.scores += later.scores
        self.finish, self.stop_match = later.finish, later.stop_match


class Constraint(Protocol):
    """What the text of one completion must match."""

    def fill(self, mask: npt.NDArray[np.uint8]) -> None:
        """Sets the bits of the tokens that may come next; bit i % 8 of byte i // 8 is token i's."""

    def accept(self, token_id: int) -> bool:
        """Takes a token; False where it was not allowed."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing but the end may follow."""


class LogMismatch(Exception):
    """The log's text is not what its tokens give: it was written with another tokenizer."""


class Broken(Exception):
    """A token came that the constraint does not allow."""


@dataclass(slots=True, eq=False)
class Sequence:
    """Prefills `token_ids`, then takes one token after the other until a delta says that it has finished."""

    task: Task
    detokenizer: Detokenizer
    index: int = 0
    """Which completion of its job it is."""
    constraint: Constraint | None = None
    token_ids: npt.NDArray[np.int64] = field(init=False)
    """What is prefilled: the prompt, and what was there of the completion when the sequence began, unless that is
    replayed."""
    arrival: int = field(init=False, default=0)
    """Sequences that came later have a larger number."""
    opened: bool = field(init=False, default=False)
    """Whether it has a row of the decoder."""
    prefilled: int = field(init=False, default=0)
    """How many of `token_ids` are in the cache, or planned to be at the end of this step."""
    completion_ids: list[int] = field(init=False, default_factory=list)
    replay: deque[int] = field(init=False, default_factory=deque)
    """Tokens of the completion that are to be decoded again: each is the next one where else it would be drawn."""
    last: Delta | None = field(init=False, default=None)
    """The delta that ended it."""
    _penalties: Penalties | None = field(init=False, default=None)
    _matcher: StopMatcher = field(init=False)
    _unsent: str = field(init=False, default="")

    def __post_init__(self) -> None:
        task = self.task
        self.token_ids = np.array(task.prompt_ids, np.int64)
        self._matcher = StopMatcher(task.stopping.stop_strings, include=task.stopping.include_stop_string)
        if task.sampling.penalises:
            self._penalties = Penalties(task.sampling, task.prompt_ids, task.stopping.max_tokens)

    @property
    def completion_tokens(self) -> int:
        return len(self.completion_ids)

    @property
    def position(self) -> int:
        """Which token of the completion the model gives next, from 0."""
        return len(self.completion_ids) - len(self.replay)

    @property
    def filled(self) -> int:
        """Positions in the cache: the newest token is not among them."""
        if self.prefilled < len(self.token_ids):
            return self.prefilled
        return max(self.prefilled, len(self.task.prompt_ids) + self.position - 1)

    @property
    def is_plain(self) -> bool:
        """Whether its next tokens depend on the logits alone, however many are drawn at once."""
        edited = self._penalties or self.constraint or self.task.sampling.logit_bias or self._banned
        return not (edited or self.replay or self.task.logprobs is not None)

    @property
    def _banned(self) -> Ordered[int]:
        """Token ids that must not be drawn next, because the completion is too short to end."""
        stopping = self.task.stopping
        return stopping.stop_ids if len(self.completion_ids) < stopping.min_tokens else ()

    def edit(self, edits: Edits, row: int) -> None:
        """What the logits get before its next token is drawn."""
        if banned := self._banned:
            edits.ban(row, banned)
        if bias := self.task.sampling.logit_bias:
            edits.bias(row, *map(list, zip(*bias, strict=True)))
        if self._penalties is not None:
            edits.penalise(row, self._penalties)
        if self.constraint is not None:
            self.constraint.fill(edits.mask(row))

    def resume(self, logged: Logged, *, replay: bool) -> None:
        """Takes the logged tokens as its own, to be prefilled behind the prompt or replayed. Text that they give and
        the log lacks goes with the next delta. Where they end the completion, `last` is set. Raises `LogMismatch`."""
        if logged.finished:
            self.completion_ids, self.last = list(logged.token_ids), Delta()
            return
        try:
            text = self._accept_all(logged.token_ids)
        except Broken as broken:
            raise LogMismatch from broken
        if not text.startswith(logged.text):
            raise LogMismatch
        self._unsent = text[len(logged.text) :]
        if replay:
            self.replay.extend(logged.token_ids)
        else:
            self.token_ids = np.array(self.task.prompt_ids + logged.token_ids, np.int64)
        if self.last is not None:
            self.last = Delta(text=self._unsent, finish=self.last.finish, stop_match=self.last.stop_match)

    def rewind(self) -> None:
        """Its row is gone: it prefills again what it had."""
        held = self.completion_ids[: self.position]
        self.token_ids = np.array([*self.task.prompt_ids, *held], np.int64)
        self.opened, self.prefilled = False, 0

    def accept(self, token_id: int, scores: tuple[Score, ...] = ()) -> Delta:
        """The next token of the completion, and what it adds. Raises `Broken`."""
        self.completion_ids.append(token_id)
        if self._penalties is not None:
            self._penalties.push(token_id)
        delta = self._advance(token_id)
        delta.scores = scores
        if self._unsent:
            delta.text, self._unsent = self._unsent + delta.text, ""
        if delta.finish is not None:
            self.last = delta
        return delta

    def _accept_all(self, token_ids: Ordered[int]) -> str:
        text = ""
        for token_id in token_ids:
            text += self.accept(token_id).text
            if self.last is not None:
                break
        return text

    def _advance(self, token_id: int) -> Delta:
        stopping = self.task.stopping
        if token_id in stopping.stop_ids and self.completion_tokens > stopping.min_tokens:
            return self._finish("", token_id, Finish.STOP)
        if self.constraint is not None and not self.constraint.accept(token_id):
            raise Broken("a token came that the output format does not allow")
        armed = self.completion_tokens >= stopping.min_tokens
        text, match = self._matcher.push(self.detokenizer.push(token_id), armed=armed)
        if match:
            return Delta(text=text, token_ids=(token_id,), finish=Finish.STOP, stop_match=match)
        if self.constraint is not None and self.constraint.is_complete:
            return self._finish(text, token_id, Finish.STOP)
        if self.completion_tokens >= stopping.max_tokens:
            return self._finish(text, token_id, Finish.LENGTH)
        return Delta(text=text, token_ids=(token_id,))

    def _finish(self, text: str, token_id: int, finish: Finish) -> Delta:
        """Ends it with all text that waits, in which a stop string may still complete."""
        tail, match = self._matcher.push(self.detokenizer.flush())
        if match:
            return Delta(text=text + tail, token_ids=(token_id,), finish=Finish.STOP, stop_match=match)
        return Delta(text=text + tail + self._matcher.flush(), token_ids=(token_id,), finish=finish)
