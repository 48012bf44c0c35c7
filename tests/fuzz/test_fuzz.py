"""A short share of every target, and the command that runs them all."""

import sys
from pathlib import Path

import pytest

from tests.fuzz import __main__ as command
from tests.fuzz.child import load
from tests.fuzz.drive import drive
from tests.fuzz.folders import GenaiConfig, ModelYaml
from tests.fuzz.http import Http
from tests.fuzz.requests import Watches
from tests.fuzz.sockets import Sockets
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS, shares
from tests.fuzz.wire import Calls, Running

SEED = 1
SHORT = {
    "generate": 600,
    "infer": 500,
    "submit": 300,
    "watch": 300,
    "lookups": 300,
    "tenant": 300,
    "tensors": 200,
    "generation": 60,
    "stub": 40,
    "text-tensors": 200,
    "openai": 300,
    "typed": 60,
    "images": 90,
    "sounds": 80,
    "output-format": 120,
    "chat-template": 120,
    "model-yaml": 40,
    "decoder-yaml": 6,
    "genai-config": 10,
    "tokenizer": 15,
    "onnx": 70,
    "hostile": 40,
    "merged": 60,
    "task-files": 25,
    "policy": 40,
    "manifest": 30,
    "warmup": 30,
    "zip-source": 40,
}
"""Inputs: half of them known ones, from all over the list, the others drawn."""


@pytest.mark.parametrize("name", SHORT)
def test_nothing_that_a_stranger_sends_breaks_a_contract(name: str) -> None:
    check(load(TARGETS[name])(SEED), SHORT[name])


def test_nothing_that_a_stranger_calls_breaks_a_process(running: Running) -> None:
    check(Calls(SEED, running), 120)


def test_nothing_that_a_stranger_posts_breaks_a_process(running: Running) -> None:
    check(Http(SEED, running), 90)


def test_nothing_that_a_stranger_writes_into_a_socket_breaks_a_process(running: Running) -> None:
    check(Sockets(SEED, running), 14)


def check(target: Target, count: int) -> None:
    tally = drive(target, spread(target, count), seconds=10.0)
    assert [found.text for found in tally.findings] == []
    assert tally.accepted > 0
    assert tally.refused > 0


def spread(target: Target, count: int) -> list[int]:
    known = range(0, len(target.known), max(2 * len(target.known) // count, 1))
    return [*known, *range(len(target.known), len(target.known) + count - len(known))]


def test_the_same_seed_makes_the_same_inputs_and_another_one_others() -> None:
    def made(kind: type[Target], seed: int, count: int) -> list[bytes]:
        target = kind(seed)
        return [target.make(index) for index in range(count)]

    for kind in (Watches, GenaiConfig, ModelYaml):
        assert made(kind, SEED, 300) == made(kind, SEED, 300) != made(kind, SEED + 1, 300)


def test_all_inputs_are_divided_among_the_targets_and_all_targets_get_some() -> None:
    divided = shares(100_000, list(TARGETS))
    assert sum(divided.values()) == 100_000
    assert min(divided.values()) > 0
    assert shares(7, ["wire", "onnx"]) == {"wire": 4, "onnx": 3}


def run_command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fuzz", *words])
    return command.main()


def test_the_command_saves_what_it_found_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "FINDINGS", tmp_path)
    monkeypatch.setitem(TARGETS, "planted", "tests.fuzz.planted:Crashes")
    assert run_command(monkeypatch, "--only", "planted,tenant", "--inputs", "20", "--seed", "7") == 1
    assert (tmp_path / "7" / "planted-3.input").read_bytes() == b"now"
    assert "20 inputs" in capsys.readouterr().out
    assert run_command(monkeypatch, "--only", "tenant", "--inputs", "20", "--seed", "7") == 0


def test_a_saved_input_is_run_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "tenant-12.input"
    for tenant, answer in ((b"tenant-1", "accepted\n"), (b"a b", "refused\n")):
        saved.write_bytes(tenant)
        assert run_command(monkeypatch, "--replay", str(saved)) == 0
        assert capsys.readouterr().out == answer
