"""The sounds: said once, kept on the disk, and read from there by every process that trains.

Training and validation lie in archives, the held-out part as a data set that `millrace evaluate` takes: FLAC files, and
`labels.jsonl` with a line for each. Half of the held-out sounds are spoilt by a room and by noise.
"""

import json
import multiprocessing
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from examples.speech import augment
from examples.speech.features import SAMPLE_RATE
from examples.speech.voices import Part, Utterance, plan, spoken

Samples = npt.NDArray[np.int16]
SEED = 1
LISTING = "labels.jsonl"
CLEAN, NOISY = "clean", "noisy"
MARGIN_S = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Utterances of each part."""

    train: int = 4_000
    validation: int = 100
    held_out: int = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Sound i is `samples[bounds[i]:bounds[i + 1]]`, and is `digits[i]`."""

    samples: Samples
    bounds: npt.NDArray[np.int64]
    digits: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.digits)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Samples of each sound."""
        return np.diff(self.bounds)

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE

    def sound(self, index: int) -> npt.NDArray[np.float32]:
        """In [-1, 1]."""
        return to_floats(self.samples[self.bounds[index] : self.bounds[index + 1]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A held-out sound: its file, what is said in it, and whether it is CLEAN or NOISY."""

    path: Path
    text: str
    condition: str

    @property
    def id(self) -> str:
        """Its name in the listing."""
        return self.path.stem


def to_floats(samples: Samples) -> npt.NDArray[np.float32]:
    """In [-1, 1]."""
    return samples.astype(np.float32) / np.float32(32_768)


def prepare(counts: Counts, folder: Path) -> None:
    """Say all parts and write them to `folder`; each is made by a fresh process, so that it is the same every time."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=len(Part), mp_context=context, max_tasks_per_child=1) as pool:
        parts = [
            pool.submit(_write_archive, Part.TRAIN, counts.train, folder),
            pool.submit(_write_archive, Part.VALIDATION, counts.validation, folder),
            pool.submit(_write_held_out, counts.held_out, folder / Part.HELD_OUT),
        ]
        for part in parts:
            part.result()


def load(part: Part, folder: Path) -> Corpus:
    """What `prepare` wrote. Raises FileNotFoundError without it."""
    path = folder / f"{part}.npz"
    if not path.exists():
        raise FileNotFoundError(f"no sounds in {folder}: run the part prepare first")
    with np.load(path) as arrays:
        digits = tuple(tuple(json.loads(line)) for line in arrays["digits"].tolist())
        return Corpus(samples=arrays["samples"], bounds=arrays["bounds"], digits=digits)


def load_held_out(folder: Path) -> list[Labelled]:
    """Of a data set's folder, in the order of its listing."""
    rows = [json.loads(line) for line in (folder / LISTING).read_text().splitlines()]
    return [Labelled(path=folder / row["audio"], text=row["text"], condition=row["condition"]) for row in rows]


def write_data_set(corpus: Corpus, folder: Path) -> None:
    """As one that `millrace evaluate` and `millrace optimize` take."""
    sounds = ((corpus.sound(index), {"text": spoken(digits)}) for index, digits in enumerate(corpus.digits))
    _write_data_set(sounds, folder)


def of(sounds: Sequence[Samples], digits: Sequence[tuple[int, ...]]) -> Corpus:
    """The corpus of these sounds."""
    bounds = np.cumsum([0, *(len(sound) for sound in sounds)])
    return Corpus(samples=np.concatenate(sounds), bounds=bounds, digits=tuple(digits))


def _say(utterances: Sequence[Utterance]) -> list[Samples]:
    from examples.speech.synthesis import Synthesiser

    synthesiser = Synthesiser()
    return [synthesiser.say(utterance) for utterance in utterances]


def _write_archive(part: Part, count: int, folder: Path) -> None:
    utterances = plan(part, count, SEED)
    corpus = of(_say(utterances), [utterance.digits for utterance in utterances])
    digits = np.array([json.dumps(row) for row in corpus.digits])
    unfinished = folder / f".{part}.npz"
    np.savez(unfinished, samples=corpus.samples, bounds=corpus.bounds, digits=digits)
    unfinished.replace(folder / f"{part}.npz")


def _write_held_out(count: int, folder: Path) -> None:
    utterances = plan(Part.HELD_OUT, count, SEED)
    made: list[tuple[npt.NDArray[Any], dict[str, str]]] = []
    for index, (utterance, samples) in enumerate(zip(utterances, _say(utterances), strict=True)):
        random = np.random.default_rng((SEED, index))
        condition = NOISY if index % 2 else CLEAN
        sound = _held_out(to_floats(samples), random, noisy=condition == NOISY)
        made.append((sound, {"text": utterance.text, "condition": condition, "voice": utterance.voice}))
    _write_data_set(made, folder)


def _write_data_set(sounds: Iterable[tuple[npt.NDArray[Any], Mapping[str, str]]], folder: Path) -> None:
    """`sounds`: samples, and what their lines have beside the file's name."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index, (samples, row) in enumerate(sounds):
        name = f"{index:04}.flac"
        soundfile.write(folder / name, samples, SAMPLE_RATE, subtype="PCM_16")
        lines.append(json.dumps({"id": name.removesuffix(".flac"), "audio": name, **row}))
    (folder / LISTING).write_text("\n".join(lines) + "\n")


def _held_out(sound: npt.NDArray[np.float32], random: np.random.Generator, *, noisy: bool) -> npt.NDArray[np.float32]:
    """With quiet before and behind it."""
    margins = random.integers(SAMPLE_RATE // 20, int(MARGIN_S * SAMPLE_RATE), 2)
    quiet = np.pad(sound * np.float32(random.uniform(0.3, 0.9)), tuple(margins))
    if noisy:
        quiet = augment.with_noise(augment.in_room(quiet, random), random, augment.SNR_DB)
    return np.clip(quiet, -1, 1)
