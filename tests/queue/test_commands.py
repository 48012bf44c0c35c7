"""What is wanted of models is kept until somebody wants something else."""

import pytest

from millrace.errors import Unavailable
from millrace.queue import Command, Commands, Verb, connect, keys
from tests.queue.bench import Bench


def verbs(commands: dict[str, Command]) -> dict[str, Verb]:
    return {name: command.verb for name, command in commands.items()}


async def test_the_last_word_about_a_model_is_what_is_wanted_of_it(bench: Bench) -> None:
    commands = Commands(bench.redis)
    serials = [await commands.give("models", "story", verb) for verb in (Verb.LOAD, Verb.UNLOAD)]
    serials.append(await commands.give("models", "tale", Verb.LOAD))
    assert serials == sorted(set(serials))
    read = await commands.read("models")
    assert verbs(read) == {"story": Verb.UNLOAD, "tale": Verb.LOAD}
    assert [read["story"].serial, read["tale"].serial] == serials[1:]


async def test_a_repository_knows_only_its_own_commands(bench: Bench) -> None:
    commands = Commands(bench.redis)
    await commands.give("models", "story", Verb.LOAD)
    await commands.give("models-2", "story", Verb.UNLOAD)
    assert verbs(await commands.read("models")) == {"story": Verb.LOAD}
    assert verbs(await commands.read("model")) == {}


async def test_a_command_that_cannot_be_read_hides_no_other(bench: Bench) -> None:
    commands = Commands(bench.redis)
    await commands.give("models", "story", Verb.LOAD)
    later = b'{"serial":1,"verb":"of a later version","at_ms":1}'
    await bench.redis.hset(keys.COMMANDS, mapping={"models/tale": later, "models/saga": b"\xff", "models/epic": b"{}"})
    assert verbs(await commands.read("models")) == {"story": Verb.LOAD}


async def test_a_command_about_a_name_that_is_no_text_is_about_no_model(bench: Bench) -> None:
    commands = Commands(bench.redis)
    await commands.give("models", "story", Verb.LOAD)
    await bench.redis.hset(keys.COMMANDS, b"models/\xff", b'{"serial":1,"verb":"load","at_ms":1}')
    assert verbs(await commands.read("models")) == {"story": Verb.LOAD, "\ufffd": Verb.LOAD}


async def test_serial_numbers_go_on_behind_a_server_that_has_lost_the_commands(bench: Bench) -> None:
    commands = Commands(bench.redis)
    before = await commands.give("models", "story", Verb.LOAD)
    await bench.redis.delete(keys.COMMANDS)
    await bench.pass_time(0.01)
    assert await commands.give("models", "story", Verb.LOAD) > before


async def test_a_server_that_is_away_is_unavailable() -> None:
    async with connect("redis://127.0.0.1:1/0") as redis:
        with pytest.raises(Unavailable):
            await Commands(redis).read("models")
