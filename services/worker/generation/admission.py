"""From the worker's jobs to the engine's: parsed where they are added, and handed over at the next step."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from google.protobuf.message import DecodeError

from millrace.engine import Failure, Output, Work
from millrace.errors import Code
from millrace.v1.generation_pb2 import GenerateRequest, OutputFormat
from services.worker.arrivals import Arrivals
from services.worker.generation import messages
from services.worker.generation.config import ModelConfig
from services.worker.generation.job import Job
from services.worker.generation.requests import Parser, Rejected, decode, invalid
from services.worker.generation.sequence import LogMismatch, Sequence
from services.worker.generation.task import Task
from services.worker.generation.text.chat import read_chat_template
from services.worker.generation.text.grammar import Grammar, GrammarError, Grammars
from services.worker.generation.text.vocabulary import Vocabulary

MISMATCH = Failure(code=Code.DATA_LOSS, reason="LOG_MISMATCH", message="earlier results do not fit this model's text")
PREPARED_S = 0.005
"""How long a step that has nothing else to do waits for a job that is being prepared."""


class Admission:
    """Filled on any thread, emptied on the engine's. A request with an output format is prepared on a thread of its
    own, since its grammar may take a while."""

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary) -> None:
        """Raises ValueError where the model's chat template is not in order."""
        template = read_chat_template(config.decoder.tokenizer.parent)
        self._parser = Parser(config=config, vocabulary=vocabulary, chat_template=template)
        self._config, self._vocabulary = config, vocabulary
        self._grammars: Grammars | None = None
        self._arrivals = Arrivals[Job]()
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._crash: BaseException | None = None

    @property
    def places(self) -> int:
        """How many sequences there are, or will be, in the engine."""
        return len(self._arrivals)

    def add(self, work: Work) -> None:
        try:
            request = decode(work.request)
            task = self._parser.parse(work.lease, request, submitted_at=work.submitted_at)
        except Rejected as rejected:
            self._arrivals.end(Output(lease=work.lease, last=True, failure=rejected.failure))
            return
        self._arrivals.promise(work.lease, task.completions)
        if request.output_format.WhichOneof("format") is None:
            self._admit(work, task)
        else:
            self._preparing.submit(self._prepare, work, task, request)

    def abort(self, lease: str) -> None:
        self._arrivals.leave(lease)

    def freed(self, lease: str) -> None:
        """One of a job's sequences is gone."""
        self._arrivals.freed(lease)

    def take(self, join: Callable[[Job], None], forget: Callable[[str], None]) -> list[Output]:
        """Hands over what has come, and answers what has ended before it could. Raises whatever a preparation has
        raised that is nobody's fault but ours."""
        if self._crash is not None:
            raise self._crash
        return self._arrivals.take(join, forget)

    def wait(self) -> bool:
        """Whether a job is being prepared, for which this waits a little."""
        return self._arrivals.wait(PREPARED_S)

    def _prepare(self, work: Work, task: Task, request: GenerateRequest) -> None:
        try:
            self._admit(work, task, self._compile(request.output_format))
        except GrammarError as error:
            failure = invalid(error.field, error.message, "OUTPUT_FORMAT").failure
            self._arrivals.end(Output(lease=work.lease, last=True, failure=failure))
        except BaseException as error:
            self._crash = error

    def _compile(self, output_format: OutputFormat) -> Grammar:
        """The first one builds what a large vocabulary takes a second and 100 MB for."""
        if self._grammars is None:
            decoder = self._config.decoder
            try:
                self._grammars = Grammars(self._vocabulary.tokenizer, decoder.vocabulary_size, decoder.eos_token_ids)
            except ValueError as error:
                raise GrammarError("output_format", f"this model's texts cannot be constrained: {error}") from error
        return self._grammars.compile(output_format)

    def _admit(self, work: Work, task: Task, grammar: Grammar | None = None) -> None:
        constraints = [None if grammar is None else grammar.fork() for _ in range(task.completions)]
        sequences = [
            Sequence(task, self._vocabulary.detokenizer(), index, constraint)
            for index, constraint in enumerate(constraints)
        ]
        job = Job(task, sequences)
        try:
            log = messages.read_log(work.results, task.completions)
            job.resume(log, replay=self._config.replays)
        except (DecodeError, LogMismatch):
            self._arrivals.end(Output(lease=work.lease, last=True, failure=MISMATCH))
            return
        if job.running:
            self._arrivals.fulfil(work.lease, job)
        else:
            result = None if log.finished else messages.respond(job, self._vocabulary)
            self._arrivals.end(Output(lease=work.lease, result=result, last=True, cost=job.cost))
