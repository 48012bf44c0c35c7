"""Transcripts while the processes that make and carry them die."""

import asyncio
import random
from itertools import pairwise
from pathlib import Path

import pytest

from millrace import AsyncClient
from millrace.client.tasks import Segment
from tests.eventually import eventually
from tests.survival.fleet import Fleet, fleet
from tests.worker.tasks.sounds import MEL_SOUND, TONES, encoded, mel_graph, melody, write_sound_model

NOTES, TRANSCRIPTS, FIRST = 1_500, 6, 10
SOUND = {**MEL_SOUND, "window_s": 2.88, "overlap_s": 0.48, "most_s": 600}


def repository() -> Path:
    return write_sound_model(mel_graph(), SOUND, max_rows=4).folder.parents[1]


def song(seed: int) -> str:
    return "".join(random.Random(seed).choices("abcd", k=NOTES))


async def listen(client: AsyncClient, sound: bytes, heard: list[Segment]) -> None:
    async for segment in client.transcribe("tones", sound):
        heard += [segment]


async def kill(running: Fleet, kind: str) -> None:
    await running.replace(running.workers[0] if kind == "worker" else running.frontends[0])


@pytest.mark.parametrize("kind", ["worker", "frontend"])
async def test_a_transcript_goes_on_where_it_was(kind: str) -> None:
    songs = [song(number) for number in range(TRANSCRIPTS)]
    sounds = [encoded(melody(notes), form="FLAC") for notes in songs]
    heard: list[list[Segment]] = [[] for _ in songs]
    async with (
        fleet(repository(), frontends=2, workers=1) as running,
        AsyncClient(*running.addresses) as client,
        asyncio.TaskGroup() as tasks,
    ):
        for sound, segments in zip(sounds, heard, strict=True):
            tasks.create_task(listen(client, sound, segments))
        await eventually(lambda: min(map(len, heard)) >= FIRST, within_s=60)
        await kill(running, kind)
    for notes, segments in zip(songs, heard, strict=True):
        assert "".join(segment.text for segment in segments) == notes
        assert [segment.offset for segment in segments] == list(range(1, len(segments) + 1))
        assert all(earlier.start_s <= later.start_s for earlier, later in pairwise(segments))
    attempts = {segments[-1].message.timing.attempts for segments in heard}
    assert attempts == ({2} if kind == "worker" else {1})
    assert set(TONES) > set(songs[0])
