"""What of the GPU check does not need one: the same code on the CPU, over tiny models."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from scripts.gpu_check import agreement, card, speed
from scripts.gpu_check.__main__ import main
from scripts.gpu_check.measure import Plan, fitting_rows, measure
from scripts.gpu_check.models import SMALL, Dialect, open_decoder, served_on, sized
from scripts.gpu_check.report import Measured, Report, Run
from scripts.gpu_check.roofline import Card, Work, position_bytes, weight_bytes
from services.worker.generation.sampling.sampler import Sampler
from tests.models import LLAMA_8B, Llama
from tests.worker.generation.paged.reference import with_reference

TINY = Llama(vocabulary_size=600, slots=3, context_length=64)
SHALLOW = dataclasses.replace(SMALL, layers=1)
EXACT = served_on(SHALLOW, "gqa", "cpu")
PLAN = Plan(rows=[1, 3], length=20, chunk=16, steps=2)
CARD = Card(bytes_s=1e9, flops_s=1e12)


def test_without_a_gpu_it_says_so_in_one_line_and_succeeds(capsys: pytest.CaptureFixture[str]) -> None:
    if card.why_not() is None:
        pytest.skip("there is a GPU")
    assert main([]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("skipped: ")
    assert shown.out.count("\n") == 1
    assert shown.err == ""


@pytest.mark.parametrize("options", [["--sizes", "2B"], ["--dialects", "gqa,dense"], ["--rows", "many"]])
def test_what_it_does_not_know_is_an_error(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(options)
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize("dialect", ["gqa", "paged"])
def test_the_same_model_agrees_with_itself_through_all_that_a_row_may_go_through(
    dialect: Dialect, tmp_path: Path
) -> None:
    shape = served_on(SHALLOW, dialect, "cpu")
    assert agreement.largest_difference(shape, EXACT, tmp_path, transform=with_reference) < 1e-4


def test_another_model_does_not_agree(tmp_path: Path) -> None:
    shape = dataclasses.replace(EXACT, layers=2)
    assert agreement.largest_difference(shape, EXACT, tmp_path) > agreement.TOLERANCE


def test_numbers_that_are_none_do_not_agree(tmp_path: Path) -> None:
    last = int(agreement.made_texts(EXACT.vocabulary_size)[2][-1])
    shape = dataclasses.replace(EXACT, layers=2, nan_token_id=last)
    assert agreement.largest_difference(shape, EXACT, tmp_path) == float("inf")


def test_a_model_is_measured_from_its_weights_to_its_figures(tmp_path: Path) -> None:
    said: list[str] = []
    measured = measure(served_on(TINY, "gqa", "cpu"), PLAN, tmp_path, size="tiny", say=said.append)
    assert measured.missing == []
    assert [(run.kind, run.rows) for run in measured.runs] == [("decode", 1), ("decode", 3), ("prefill", 1)]
    assert all(run.tokens_s > 0 for run in measured.runs)
    assert measured.overhead is not None
    assert 0 < measured.overhead.share < 1
    assert measured.sequences_bytes > 3 * PLAN.row_length * position_bytes(TINY)
    assert said == [f"tiny gqa: {part}" for part in ("decode", "prefill", "overhead")]


def test_what_fails_is_noted_and_the_rest_goes_on(tmp_path: Path) -> None:
    measured = measure(served_on(TINY, "paged", "cpu"), PLAN, tmp_path, size="tiny", say=lambda line: None)
    assert measured.runs == []
    assert [line.partition(":")[0] for line in measured.missing] == [
        "no decode",
        "no prefill",
        "no overhead",
        "no decode, captured",
    ]
    assert all("PagedAttention" in line for line in measured.missing)


def test_rows_of_a_paged_model_are_freed_after_they_were_measured(tmp_path: Path) -> None:
    shape = sized(served_on(TINY, "paged", "cpu"), rows=3, length=64, chunk=16)
    decoder = open_decoder(shape, tmp_path, transform=with_reference)
    sampler, room = Sampler(decoder.logits, threads=1), decoder.room
    assert speed.decode_seconds(decoder, sampler, rows=3, length=40, steps=2) > 0
    assert speed.prefill_seconds(decoder, sampler, tokens=32, repeats=1) > 0
    assert decoder.room == room
    with pytest.raises(MemoryError, match="100 positions"):
        speed.prefill_seconds(decoder, sampler, tokens=100, repeats=1)


def test_only_so_many_rows_are_measured_as_fit_into_the_card() -> None:
    plan = Plan(rows=[1, 32, 256], length=512, chunk=2048)
    assert fitting_rows(LLAMA_8B, plan, 80 << 30) == [1, 32, 256]
    assert fitting_rows(LLAMA_8B, plan, 24 << 30) == [1, 32]
    assert fitting_rows(LLAMA_8B, plan, weight_bytes(LLAMA_8B)) == []
    assert fitting_rows(LLAMA_8B, plan, None) == [1, 32, 256]


def report(known: Card | None) -> Report:
    work = Work(tokens=8, read_bytes=1e6, flops=1e9)
    runs = [Run(kind=kind, rows=8, seconds=0.002, work=work) for kind in ("decode", "prefill")]
    overhead = speed.Overhead(step_s=0.010, model_s=0.0096)
    measured = Measured(size="1B", dialect="paged", runs=runs, overhead=overhead, weights_bytes=3 * 10**9)
    measured.missing.append("no room for 256 sequences of 576 positions")
    return Report(device="NVIDIA T1", card=known, agreement={"paged": 0.0123}, models=[measured])


def table(known: Card | None) -> str:
    console = Console(file=io.StringIO(), width=120, record=True)
    report(known).show(console)
    return console.export_text()


def test_the_table_has_tokens_a_second_shares_overhead_and_memory() -> None:
    shown = table(CARD)
    for part in (
        "4,000",
        "50%",
        "4.0% of an engine's step of 10.00 ms",
        "3.0 GB of weights",
        "0.012",
        "no room for 256",
    ):
        assert part in shown


def test_a_card_that_is_not_known_has_no_shares() -> None:
    shown = table(None)
    assert "50%" not in shown
    assert "--bandwidth" in shown


def test_the_json_says_what_the_table_says() -> None:
    plain = json.loads(json.dumps(report(CARD).plain()))
    (model,) = plain["models"]
    assert [run["share"] for run in model["runs"]] == [0.5, 0.5]
    assert [run["tokens_s"] for run in model["runs"]] == [4000.0, 4000.0]
    assert model["overhead"]["share"] == pytest.approx(0.04)
    assert plain["agreement"] == {"paged": 0.0123}
