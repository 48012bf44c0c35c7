"""Whatever state a generation has beside its tokens goes on with it, on another worker."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from millrace import AsyncClient
from millrace.v1.generation_pb2 import GenerateResponse
from tests.survival.fleet import Fleet, Transcript, all_have, fleet, stream
from tests.survival.verdict import differences

MODELS = Path("models")
TOKENS = 160
SCHEMA = '{"type": "array", "items": {"type": "string", "pattern": "^[a-z ]{20}$"}, "minItems": 12, "maxItems": 12}'
KINDS: dict[str, dict[str, Any]] = {
    "schema": {"json_schema": SCHEMA, "max_tokens": 900},
    "expression": {"regex": "([a-z_]{3,9} = [0-9]{2,5}\n){40}", "max_tokens": 900},
    "grammar": {"grammar": 'start: line{60}\nline: /[a-z]{4}/ "(" /[0-9]{2}/ ")\\n"', "max_tokens": 900},
    "penalties": {"repetition_penalty": 1.1, "frequency_penalty": 0.2, "presence_penalty": 0.1},
    "bias": {"logit_bias": {60: 2.0, 61: -5.0}, "min_tokens": 100},
    "completions": {"num_completions": 4},
    "log-probabilities": {"logprobs": 3, "prompt_logprobs": 1},
    "all": {"num_completions": 2, "logprobs": 1, "presence_penalty": 0.3, "regex": "[a-z_\n ]{400}", "max_tokens": 900},
    "stops": {"stop_strings": ["never in\nthis text", "\n\n\n\n\n\n"], "include_stop_string": True},
}


def told(messages: list[GenerateResponse]) -> dict[int, str]:
    """The text of each completion."""
    texts: dict[int, str] = {}
    for message in messages:
        for delta in message.deltas:
            texts[delta.index] = texts.get(delta.index, "") + delta.text
    return texts


async def run(running: Fleet, name: str, *, kill: bool) -> dict[str, Transcript]:
    seen = {kind: Transcript(job_id=f"{name}-{kind}", prompt="import os\n\ndef walk(") for kind in KINDS}
    async with AsyncClient(*running.addresses) as client, asyncio.TaskGroup() as tasks:
        for number, (kind, options) in enumerate(KINDS.items()):
            given = {"max_tokens": TOKENS, "ignore_eos": True, "temperature": 0.9, "seed": number} | options
            tasks.create_task(stream(client, seen[kind], "pycode", **given))
        if kill:
            await all_have(list(seen.values()), 20)
            await running.replace(running.workers[0])
    assert await differences(running, "pycode", list(seen.values())) == []
    return seen


@pytest.mark.timeout(300)
async def test_every_kind_of_generation_survives_the_death_of_its_worker() -> None:
    async with fleet(MODELS, frontends=1, workers=1) as running:
        calm = await run(running, "calm", kill=False)
        disturbed = await run(running, "disturbed", kill=True)
    assert all(transcript.attempts == 2 for transcript in disturbed.values())
    changed = [kind for kind in KINDS if told(calm[kind].messages) != told(disturbed[kind].messages)]
    assert len(changed) <= 1, changed  # Prefill rounds as it does: a near tie may fall the other way.
    for index, text in told(disturbed["all"].messages).items():
        assert re.fullmatch("[a-z_\n ]{400}", text), index
    scored = [entry for message in disturbed["log-probabilities"].messages for entry in message.prompt_logprobs]
    assert len(scored) == disturbed["log-probabilities"].messages[-1].usage.prompt_tokens
