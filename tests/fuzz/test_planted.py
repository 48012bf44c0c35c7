"""Faults that show that each target finds what it should."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from redis import Redis

from millrace.queue import JobRef, ModelVersion, keys
from millrace.tensors import pack_bytes
from millrace.v1.generation_pb2 import GenerateRequest
from millrace.v1.job_pb2 import JobOptions
from millrace.v1.job_service_pb2 import GetJobRequest, SubmitJobRequest
from services.worker import untrusted
from services.worker.batch import running
from tests.fuzz import hostile, planted, wire
from tests.fuzz.drive import drive
from tests.fuzz.folders import ModelYaml, TokenizerJson
from tests.fuzz.generation import GOOD, Tiny
from tests.fuzz.requests import Generations, Infers
from tests.fuzz.target import Finding, Target
from tests.fuzz.tensors import Tensors
from tests.fuzz.things import THINGS
from tests.fuzz.watch import watch
from tests.fuzz.wire import Calls, Running, case, check_status

SEED = 1


def found_by(target: Target, count: int = 400) -> str:
    """What a target says of its inputs."""
    return "\n".join(found.kind for found in drive(target, range(count), seconds=10.0).findings)


def test_a_parser_that_takes_anything_is_found_by_the_contract() -> None:
    kinds = found_by(Generations(SEED, planted.takes_anything), 1_000)
    assert "sampling" in kinds
    assert "neither model nor prompt" in kinds


def test_a_parser_that_raises_a_foreign_error_is_found() -> None:
    assert "ValueError" in found_by(Generations(SEED, planted.raises_value_errors))


def test_a_parser_that_looks_at_no_tensor_is_found() -> None:
    assert "inputs" in found_by(Infers(SEED, planted.looks_at_no_tensor), 100)


def test_refusals_too_large_for_a_trailer_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.frontend.parse.MOST_VIOLATIONS", 1 << 20)
    turns = b"\x0a\x06tested\x2a\xe8\x07" + b"\x0a\x00" * 500
    with pytest.raises(Finding, match="the status of a refusal takes"):
        Generations(SEED).run(turns)


@contextmanager
def opened(target: Target) -> Iterator[Target]:
    with ExitStack() as stack:
        target.open(stack)
        yield target


def test_answers_of_other_rows_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = running._split

    def swapped(batch: Any, ports: Any, produced: Any) -> Any:
        batch.items.reverse()
        return real(batch, ports, produced)

    monkeypatch.setattr("services.worker.batch.running._split", swapped)
    assert "another answer" in found_by(Tensors(SEED), 500)


def test_a_request_that_pulls_its_neighbours_down_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.worker.batch.codec._note_sizes", lambda *_: None)
    assert found_by(Tensors(SEED), 300)


def test_padding_without_a_bound_is_found() -> None:
    (found,) = watch("tests.fuzz.planted:Unbounded", SEED, 1, seconds=2.0).findings
    assert found.kind.startswith("MemoryError")


def test_a_token_that_no_vocabulary_has_is_found_where_the_engine_does_not_refuse_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.worker.generation.requests.Parser._check_ids", lambda *_: None)
    with opened(Tiny(SEED)) as target, pytest.raises(Exception, match="out of data bounds"):
        target.run(pack_bytes([b"\x0a\x06tested\x22\x04\x0a\x02\xff\x7f"]))


def test_a_model_that_breaks_with_its_first_request_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.worker.batch.engine.check_padding", lambda *_: None)
    with opened(ModelYaml(SEED)) as target, pytest.raises(ValueError, match="could not convert"):
        target.run(target.known[0].replace(b"x: 0", b"x: text"))


def test_a_panic_below_the_engine_is_named_as_a_reason_and_found_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Panic(BaseException):
        pass

    def panics(_: Any) -> None:
        raise Panic("at the disco")

    monkeypatch.setattr("services.worker.generation.engine.Vocabulary", panics)
    with opened(TokenizerJson(SEED)) as target, pytest.raises(Finding, match="loading fails with Panic: at the disco"):
        target.run(target.known[0])


def test_a_secret_behind_a_hard_link_is_found_in_what_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    linked = b'{"thing": "hard", "at": "own"}'
    with opened(hostile.HostileFolder(SEED)) as target:
        assert target.run(linked) is False
        monkeypatch.setattr(untrusted, "_is_folder", lambda entry: entry.is_dir())
        with pytest.raises(Finding, match="a folder with a hard is served"):
            target.run(linked)
        monkeypatch.setattr(hostile, "PLAIN", frozenset(THINGS))
        with pytest.raises(Finding, match="the secret has come out"):
            target.run(linked)


def test_an_error_that_nobody_expected_is_found_in_its_call_and_in_the_log(running: Running) -> None:
    job = JobRef(ModelVersion("tested", "1"), "default", "broken")
    submission = SubmitJobRequest(generate=GenerateRequest.FromString(GOOD), job=JobOptions(job_id=job.job_id))
    named = GetJobRequest(job_id=job.job_id).SerializeToString()
    with opened(Calls(SEED, running)) as target, Redis.from_url(running.valkey.url) as redis:
        assert target.run(case(f"{wire.JOBS}SubmitJob", (), submission.SerializeToString()))
        assert target.run(case(f"{wire.JOBS}WatchJob", (), named))
        assert redis.hset(keys.job(job), "state", "of no state") == 0
        with pytest.raises(Finding, match="INTERNAL: INTERNAL an error inside the service"):
            target.run(case(f"{wire.JOBS}GetJob", (), named))
        with pytest.raises(Finding, match="the frontend has logged an error that nobody expected"):
            target.finish()


def test_a_frontend_that_grows_is_found(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SETTLED", 1)
    monkeypatch.setattr(wire, "GROWTH_BYTES", -(1 << 40))
    with opened(Calls(SEED, running)) as target:
        target.run(case("/inference.GRPCInferenceService/ServerLive", (), b""))
        with pytest.raises(Finding, match="MB more than at first"):
            target.finish()


class Answering(grpc.GenericRpcHandler):
    """Ends every call with the status that its method names."""

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        code = grpc.StatusCode[details.method.rpartition("/")[2]]
        return grpc.unary_unary_rpc_method_handler(
            lambda _, context: context.abort(code, "an error inside the service")
        )


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("UNKNOWN", "ended with UNKNOWN"),
        ("INTERNAL", "INTERNAL:  an error inside the service"),
        ("INVALID_ARGUMENT", "INVALID_ARGUMENT without a reason"),
    ],
)
def test_a_status_that_is_not_documented_is_found(code: str, text: str) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((Answering(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/any/{code}", lambda message: message, lambda message: message)(b"", timeout=10)
    server.stop(None).wait()
    with pytest.raises(Finding, match=text):
        check_status(caught.value)


@pytest.mark.parametrize(
    ("fault", "kind", "seconds"),
    [
        ("Crashes", "died of 6", 5.0),
        ("Hangs", "hung", 0.2),
        ("Spins", "hung", 0.2),
        ("Swells", "large", 5.0),
        ("Leaves", "AssertionError", 5.0),
    ],
)
def test_what_a_process_does_not_survive_is_found_with_its_input_and_the_rest_is_run(
    fault: str, kind: str, seconds: float
) -> None:
    tally = watch(f"tests.fuzz.planted:{fault}", SEED, 9, seconds=seconds)
    (found,) = tally.findings
    assert found.kind.startswith(kind)
    at_the_end = fault == "Leaves"
    assert (found.index, found.data) == ((-1, None) if at_the_end else (planted.Quiet.at, b"now"))
    assert tally.accepted == (9 if at_the_end else 8)
