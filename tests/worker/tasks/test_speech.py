"""Sounds of known tones through real graphs and the batch engine: the text, its times, its parts."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.engine import Output
from millrace.errors import Code
from millrace.v1.tasks_pb2 import TranscribeResponse
from services.worker.batch import BatchEngine
from services.worker.batch.processor import Failed, Processor
from tests.worker.tasks.sounds import (
    GAP_S,
    MEL_SOUND,
    RATE,
    SYMBOLS,
    TONE_S,
    asked,
    encoded,
    mel_graph,
    melody,
    responses,
    text,
    transcriber,
    transcription,
    wave_graph,
    write_sound_model,
)

NOTES = "ab▁cadd▁bc"
TEXT = "ab cadd bc"
TUNE = encoded(melody(NOTES))


def spelled(notes: str) -> str:
    return notes.replace(" ", "").replace("▁", " ").strip()


LONG_NOTES = "".join(np.random.default_rng(1).choice([*"aabcd▁", " "], 150))
LONG_TEXT = spelled(LONG_NOTES)
LONG = encoded(melody(LONG_NOTES))
"""30 s."""
STRIDE = 4
SHORT_WINDOWS = {"window_s": 4, "overlap_s": 0.4}


def seconds(response: TranscribeResponse) -> tuple[float, float]:
    return response.start.ToNanoseconds() / 1e9, response.end.ToNanoseconds() / 1e9


@pytest.fixture(scope="module")
def listener() -> BatchEngine:
    return transcriber(mel_graph(STRIDE), MEL_SOUND | SHORT_WINDOWS)


@pytest.fixture(scope="module")
def wave_listener() -> BatchEngine:
    return transcriber(wave_graph(), SHORT_WINDOWS | {"overlap_s": 0.9})


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(
    ("form", "subtype"), [("WAV", "PCM_U8"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24")]
)
def test_tones_become_their_symbols_at_any_rate_and_depth(
    listener: BatchEngine, rate: int, form: str, subtype: str
) -> None:
    assert text(transcription(listener, encoded(melody(NOTES, rate), rate, form, subtype))) == TEXT


def test_channels_are_heard_together(listener: BatchEngine) -> None:
    left, right = melody("ab  "), melody("  cd")
    assert text(transcription(listener, encoded(np.stack([left, right], axis=1)))) == "abcd"


@pytest.mark.parametrize("stride", [1, 2, 8])
def test_graphs_of_other_strides_say_when(stride: int) -> None:
    engine = transcriber(mel_graph(stride), MEL_SOUND)
    (response,) = responses(transcription(engine, TUNE))
    assert response.text == TEXT
    start, end = seconds(response)
    assert abs(start - GAP_S) <= stride / 100 + 0.03
    assert abs(end - len(NOTES) * (TONE_S + GAP_S)) <= stride / 100 + 0.03


def test_a_waveform_is_heard_too(wave_listener: BatchEngine) -> None:
    outputs = transcription(wave_listener, LONG)
    assert len(outputs) > 5
    assert text(outputs) == LONG_TEXT


def test_a_long_sound_comes_in_parts_whose_times_follow_each_other(listener: BatchEngine) -> None:
    outputs = transcription(listener, LONG)
    assert [output.last for output in outputs] == [False] * (len(outputs) - 1) + [True]
    assert [output.cost for output in outputs] == list(range(1, len(outputs) + 1))
    times = [seconds(response) for response in responses(outputs)]
    assert all(start < end for start, end in times)
    assert all(end <= later + 0.04 for (_, end), (later, _) in pairwise(times))
    assert text(outputs) == LONG_TEXT


def test_silence_is_an_empty_text_of_all_that_was_listened_to(listener: BatchEngine) -> None:
    found = responses(transcription(listener, encoded(np.zeros(10 * RATE, np.int16))))
    assert [response.text for response in found] == [""] * len(found)
    times = [seconds(response) for response in found]
    assert (times[0][0], times[-1][1]) == (0, 10)
    assert [start for start, _ in times[1:]] == [end for _, end in times[:-1]]


@settings(max_examples=12, deadline=None)
@given(window_s=st.floats(0.8, 6), overlap_s=st.floats(0.12, 0.25), offset=st.integers(0, 6_000))
def test_any_cut_of_a_long_sound_gives_the_text_of_the_whole(window_s: float, overlap_s: float, offset: int) -> None:
    engine = transcriber(
        mel_graph(STRIDE), MEL_SOUND | {"stride": STRIDE, "window_s": window_s, "overlap_s": overlap_s}
    )
    audio = encoded(np.concatenate([np.zeros(offset, np.float32), melody(LONG_NOTES[:60])]))
    assert text(transcription(engine, audio)) == spelled(LONG_NOTES[:60])


def test_a_tone_that_lasts_over_several_windows_is_one_symbol() -> None:
    engine = transcriber(mel_graph(STRIDE), MEL_SOUND | {"stride": STRIDE, "window_s": 0.6, "overlap_s": 0.2})
    tone = 0.3 * np.sin(2 * np.pi * 500 * np.arange(3 * RATE) / RATE)
    outputs = transcription(engine, encoded(tone))
    assert len(outputs) > 5
    assert [response.text for response in responses(outputs)] == ["a"] + [""] * (len(outputs) - 1)
    assert seconds(responses(outputs)[0])[0] == 0


@pytest.mark.parametrize("held", [1, 3, 8])
def test_a_job_goes_on_behind_the_results_that_its_log_holds(listener: BatchEngine, held: int) -> None:
    whole = [response.SerializeToString() for response in responses(transcription(listener, LONG))]
    rest = responses(transcription(listener, LONG, results=whole[:held]))
    assert [response.SerializeToString() for response in rest] == whole[held:]


def test_a_job_whose_log_is_complete_only_ends(listener: BatchEngine) -> None:
    whole = [response.SerializeToString() for response in responses(transcription(listener, LONG))]
    (output,) = transcription(listener, LONG, results=whole)
    assert (output.result, output.last, output.failure) == (None, True, None)


def test_jobs_share_runs_and_do_not_hear_each_other(listener: BatchEngine) -> None:
    alone = [text(transcription(listener, encoded(melody(notes * 8)))) for notes in ("abcd", "dcba")]
    for lease, notes in (("x", "abcd"), ("y", "dcba")):
        listener.add(asked(lease, encoded(melody(notes * 8))))
    before = listener.counters()["batches"]
    outputs: list[Output] = []
    while found := listener.step():
        outputs += found
    assert listener.counters()["batches"] - before == len(outputs) / 2
    assert [text([output for output in outputs if output.lease == lease]) for lease in "xy"] == alone


def test_a_graph_whose_rows_depend_on_each_other_hears_one_sound_after_the_other() -> None:
    """As one does whose activations are rounded by one range for all rows of a run."""
    graph = mel_graph(STRIDE)
    graph.graph.node[-1].output[0] = "alone"
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "rows"))
    graph.graph.node.extend(
        [
            onnx.helper.make_node("ReduceMax", ["alone", "rows"], ["most"]),
            onnx.helper.make_node("Max", ["alone", "most"], ["scores"]),
        ]
    )
    engine = transcriber(graph, MEL_SOUND | SHORT_WINDOWS)
    for lease, notes in (("x", "abcd"), ("y", "dcba")):
        engine.add(asked(lease, encoded(melody(notes))))
    outputs: list[Output] = []
    while found := engine.step():
        outputs += found
    assert [text([output for output in outputs if output.lease == lease]) for lease in "xy"] == ["abcd", "dcba"]
    assert engine.counters()["batches"] == 2


def test_a_graph_of_fixed_length_hears_long_and_short_sounds() -> None:
    engine = transcriber(mel_graph(STRIDE, frames=201), MEL_SOUND | {"overlap_s": 0.4})
    assert text(transcription(engine, TUNE)) == TEXT
    assert text(transcription(engine, LONG)) == LONG_TEXT
    (response,) = responses(transcription(engine, encoded(np.zeros(100, np.int16))))
    assert seconds(response) == (0, 100 / RATE)


def test_what_a_graph_hears_in_padding_is_no_text() -> None:
    engine = transcriber(mel_graph(STRIDE, frames=201), MEL_SOUND | {"overlap_s": 0.4})
    (part,) = transcripts_of(engine).parts(asked("a", encoded(np.zeros(RATE // 2, np.int16))))
    scores = np.zeros((1, 51, len(SYMBOLS)), np.float32)
    scores[0, 20:, 1] = 1
    response = transcripts_of(engine).respond(part, [(engine.ports.outputs[0], scores)])
    assert isinstance(response, TranscribeResponse)
    assert (response.text, *seconds(response)) == ("", 0, 0.5)


def test_sounds_of_one_bucket_share_a_run_where_the_graph_is_told_their_lengths() -> None:
    sound = MEL_SOUND | {"length": "length", "stride": STRIDE}
    engine = transcriber(mel_graph(STRIDE, length=True), sound, buckets={"frames": 64})
    for lease, notes in (("x", "abcd"), ("y", "ddb")):
        engine.add(asked(lease, encoded(melody(notes))))
    outputs = list(engine.step() or ())
    assert [output.lease for output in outputs] == ["x", "y"]
    assert [response.text for response in responses(outputs)] == ["abcd", "ddb"]


def test_the_shortest_sound_is_heard(listener: BatchEngine, wave_listener: BatchEngine) -> None:
    for engine in (listener, wave_listener):
        (response,) = responses(transcription(engine, encoded(np.ones(1, np.int16))))
        assert response.text == ""
        assert 0 <= seconds(response)[1] <= 0.1


def test_what_is_no_sound_fails_its_job_alone(listener: BatchEngine) -> None:
    (output,) = transcription(listener, b"nonsense")
    assert output.failure is not None
    assert (output.failure.code, output.failure.field) == (Code.INVALID_ARGUMENT, "audio")
    listener.add(replace(asked("a", b""), request=b"\xff"))
    (garbled,) = listener.step() or ()
    assert garbled.failure is not None
    assert garbled.failure.message == "the request is not a TranscribeRequest"


def test_damage_behind_the_first_window_ends_the_job_there(listener: BatchEngine) -> None:
    audio = encoded(melody(LONG_NOTES), form="FLAC")
    audio = audio[: len(audio) * 3 // 4] + bytes(2_000) + audio[len(audio) * 3 // 4 + 2_000 :]
    *good, bad = transcription(listener, audio)
    assert LONG_TEXT.startswith(text(good))
    assert bad.failure is not None
    assert (bad.failure.field, bad.last) == ("audio", True)


def test_a_language_is_taken_only_by_a_model_that_names_it(listener: BatchEngine) -> None:
    german = transcriber(mel_graph(STRIDE), MEL_SOUND | {"language": "de"})
    for language in ("", "de", "de-CH", "DE"):
        assert text(transcription(german, TUNE, language=language)) == TEXT
    for engine, language in ((german, "en"), (listener, "de")):
        (output,) = transcription(engine, TUNE, language=language)
        assert output.failure is not None
        assert output.failure.field == "language"


def test_scores_that_are_no_numbers_end_their_job_alone(listener: BatchEngine) -> None:
    (part,) = transcripts_of(listener).parts(asked("a", TUNE))
    (port,) = listener.ports.outputs
    with pytest.raises(Failed, match="not numbers"):
        transcripts_of(listener).respond(part, [(port, np.full((1, 50, len(SYMBOLS)), np.nan, np.float32))])


def transcripts_of(engine: BatchEngine) -> Processor:
    return engine._processors["transcribe"]


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        ({"featurs": "waveform"}, r"sound\.featurs: Extra inputs"),
        ({"log_mel": {"mels": 0}}, r"sound\.log_mel\.mels: .* greater than or equal to 1"),
        ({"log_mel": {"mels": 80}}, r"sound\.log_mel\.mels: features takes 40"),
        ({"log_mel": {"hop_ms": 0.1}}, r"sound\.log_mel\.hop_ms: is no whole number"),
        ({"layout": "mels-frames"}, r"sound\.overlap_s: of 6240 samples"),
        ({"features": "waveform"}, r"sound\.features: features has the shape .*\[rows, samples\] is made"),
        ({"input": "sound"}, r"sound\.input: name one of the graph's FP32 and FP16: features"),
        ({"output": "logits"}, r"sound\.output: name one of the graph's FP32 and FP16: scores"),
        ({"length": "length"}, r"sound\.length: name one of the graph's INT64 and INT32: none"),
        ({"blank": 6}, r"sound\.blank: 6 is none of the 6 labels"),
        ({"blank": "<pad>"}, r"sound\.blank: '<pad>' is none of the 6 labels"),
        ({"window_s": 2, "overlap_s": 0.8}, r"sound\.window_s: of 32000 samples"),
    ],
)
def test_a_model_file_that_does_not_fit_is_an_error_that_names_the_key(sound: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        transcriber(mel_graph(STRIDE), MEL_SOUND | sound)


def test_buckets_are_refused_where_nobody_is_told_the_length() -> None:
    with pytest.raises(ValueError, match=r"batching\.buckets\.frames: .*not told the length"):
        transcriber(mel_graph(STRIDE), MEL_SOUND, buckets={"frames": 64})
    with pytest.raises(ValueError, match=r"sound\.stride: must be given"):
        transcriber(mel_graph(STRIDE, length=True), MEL_SOUND | {"length": "length"}, buckets={"frames": 64})


def test_labels_must_be_there_and_as_many_as_the_graph_has() -> None:
    for symbols, output, reason in (
        (SYMBOLS[1:], "scores", "the graph has 6, and labels.txt has 5"),
        (SYMBOLS, None, "must name the file"),
    ):
        context = write_sound_model(mel_graph(STRIDE), MEL_SOUND, symbols=symbols, output=output)
        with pytest.raises(ValueError, match=rf"labels\.scores: {reason}"):
            BatchEngine(context)
