"""Users for Redis: each part of a deployment does all of its work with its own, and nothing that is not its."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import grpc.aio
import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from typer.testing import CliRunner

from millrace.cli.app import app
from millrace.errors import Unavailable
from millrace.queue import Commands, JobQueue, JobRef, ModelEntry, ModelVersion, Registry, Verb, connect, keys, scripts
from millrace.queue.acl import KEYS, MODEL, SCRIPTS, TENANT, Role, rules
from millrace.queue.connection import AWAY
from millrace.queue.registry import WorkerEntry
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from tests.frontend.playing import Worker, frontend, read, request, texts
from tests.processes import Valkey
from tests.queue.bench import submission
from tests.queue.journey import ONE, journey
from tests.queue.servers import RedisServer

Users = Mapping[Role, str]
"""The URL of each role."""
ROLES = tuple(Role)
BASE = ONE.base


def printed(*arguments: str) -> str:
    """What `millrace redis-acl` prints."""
    done = CliRunner().invoke(app, ["redis-acl", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def password_of(role: Role) -> str:
    return f"the {role}'s password"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that name a password file for each role."""
    folder = tmp_path_factory.mktemp("passwords")
    for role in ROLES:
        (folder / role).write_text(f"{password_of(role)}\n")
    return [text for role in ROLES for text in ("--role", role, "--password-file", f"{role}={folder / role}")]


@pytest.fixture(scope="module", params=[Valkey, RedisServer], ids=["valkey", "redis"])
def guarded(
    request: pytest.FixtureRequest, files: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a server with this ACL file; the test's own user is beside it."""
    make: Callable[..., Valkey] = request.param
    acl = tmp_path_factory.mktemp("acl") / "users.acl"
    acl.touch()
    with make("--aclfile", str(acl)) as server, BlockingRedis.from_url(server.url) as operator:
        acl.write_text(f"{printed(*files)}user operator on >operator ~* &* +@all\n")
        operator.acl_load()
        yield server.url


@pytest.fixture
def operator(guarded: str) -> Iterator[BlockingRedis]:
    """Of an empty server."""
    with BlockingRedis.from_url(guarded.replace("//", "//operator:operator@")) as client:
        client.flushall()
        client.acl_log_reset()
        yield client


@pytest.fixture
def users(guarded: str, operator: BlockingRedis) -> Users:
    return {role: guarded.replace("//", f"//{role}:{quote(password_of(role))}@") for role in ROLES}


def refused(operator: BlockingRedis) -> list[object]:
    """What the server has refused to anybody."""
    return [(entry["username"], entry["object"]) for entry in operator.acl_log()]


async def test_frontends_and_workers_do_all_of_their_work(users: Users, operator: BlockingRedis) -> None:
    await journey(users[Role.FRONTEND], users[Role.WORKER], [ONE, ModelVersion("tale", "1")])
    assert refused(operator) == []


async def test_a_frontend_streams_what_a_worker_does(users: Users, operator: BlockingRedis) -> None:
    async with (
        Worker(users[Role.WORKER]) as worker,
        frontend(users[Role.FRONTEND]) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        call = TextGenerationServiceStub(channel).Generate(request())
        held = await worker.take()
        await held.emit("one")
        await held.emit("two", last=True)
        assert texts(await read(call)) == ["one", "two"]
    assert refused(operator) == []


async def test_a_monitor_sees_how_much_waits(users: Users, operator: BlockingRedis) -> None:
    async with connect(users[Role.WORKER]) as worker, connect(users[Role.MONITOR]) as monitor:
        entry = WorkerEntry(worker_id="w", device="CPU", execution_provider="CPU", state="ready")
        model = ModelEntry(name="story", version="1", task="text-generation", digest="")
        await Registry(worker).announce(entry, [model])
        assert [one.worker_id for one in await Registry(monitor).workers()] == ["w"]
        assert [one.model for one in await Registry(monitor).models()] == [ONE]
        assert (await JobQueue(monitor).load(ONE))["running"] == 0
        assert await monitor.info("memory")
    assert refused(operator) == []


async def test_nobody_is_let_in_without_a_password(guarded: str, users: Users) -> None:
    async with connect(guarded) as stranger, connect(users[Role.WORKER].replace("worker:", "worker:x")) as wrong:
        for redis in (stranger, wrong):
            with pytest.raises(AWAY):
                await redis.ping()


NOBODY = (
    ["FLUSHALL"],
    ["KEYS", "*"],
    ["SCAN", "0"],
    ["CONFIG", "GET", "*"],
    ["ACL", "LIST"],
    ["MONITOR"],
    ["SCRIPT", "FLUSH"],
    ["SHUTDOWN"],
    ["REPLICAOF", "NO", "ONE"],
    ["GET", "another"],
    ["DEL", "another"],
    ["PUBLISH", "another", "x"],
    ["SUBSCRIBE", "another"],
    ["EVAL", "return redis.call('GET', 'another')", "1", BASE],
    ["EVAL", "return redis.call('FLUSHALL')", "1", BASE],
    ["EVAL", "return redis.call('GET', KEYS[1])", "1", "another"],
)
REFUSED: Mapping[Role, tuple[list[str], ...]] = {
    Role.FRONTEND: (
        *NOBODY,
        ["HSET", keys.WORKERS, "w", "x"],
        ["BLPOP", keys.bell(ONE), "1"],
        ["GET", f"{BASE}payload:a:j:f"],
        ["GET", f"{BASE}hold"],
        ["HGETALL", f"{BASE}take:w"],
        ["EVAL", "return redis.call('HGETALL', KEYS[1] .. 'take:w')", "1", BASE],
    ),
    Role.WORKER: (
        *NOBODY,
        ["HGETALL", keys.job_index("a", "j")],
        ["HSET", keys.job_index("a", "j"), "model", "x"],
        ["HSET", keys.COMMANDS, "x", "y"],
        ["SET", f"{BASE}payload:a:j:f", "x"],
        ["SET", f"{BASE}barrier", "x"],
        ["INFO"],
        ["WAIT", "0", "1"],
    ),
    Role.MONITOR: (
        *NOBODY,
        ["HGETALL", f"{BASE}job:a:j"],
        ["XRANGE", f"{BASE}results:a:j", "-", "+"],
        ["HSET", f"{BASE}load", "jobs", "1"],
        ["PUBLISH", "mr:mailbox:f", "x"],
        ["EVAL", "return 1", "1", BASE],
    ),
    Role.REPLICA: (*NOBODY, ["INFO"], ["HGETALL", keys.WORKERS]),
    Role.SENTINEL: (["FLUSHALL"], ["KEYS", "*"], ["CONFIG", "GET", "*"], ["GET", "another"], ["ACL", "LIST"]),
}


async def test_each_role_is_refused_what_is_not_its(users: Users) -> None:
    for role, refused in REFUSED.items():
        async with connect(users[role]) as redis:
            assert [command for command in refused if not await is_denied(redis, command)] == [], role


async def is_denied(redis: Redis, command: list[str]) -> bool:
    try:
        await redis.execute_command(*command)  # type: ignore[no-untyped-call]
    except ResponseError as error:
        return re.search("(?i)no permission|can't access|can't run", str(error)) is not None
    return False


async def test_a_frontend_cannot_take_and_a_worker_cannot_submit(users: Users) -> None:
    async with connect(users[Role.FRONTEND]) as asks, connect(users[Role.WORKER]) as serves:
        await JobQueue(asks).submit(submission("j"))
        with pytest.raises(Unavailable, match="refused"):
            await JobQueue(asks).take(ONE, "w", 1, jobs=1, cost=100, alone=True)
        with pytest.raises(Unavailable, match="refused"):
            await JobQueue(serves).submit(submission("named"))
        anonymous = replace(submission("x"), ref=JobRef(ONE, "a", JobRef.anonymous_id()))
        with pytest.raises(Unavailable, match="refused"):
            await JobQueue(serves).submit(anonymous)
        with pytest.raises(Unavailable):
            await JobQueue(serves).locate("a", "j")
        with pytest.raises(Unavailable):
            await Commands(serves).give("models", "story", Verb.UNLOAD)


def test_every_key_of_the_legend_is_somebody_s() -> None:
    assert keys.__doc__ is not None
    named = re.findall(r"^    (mr:|…:)(\S+) +(?:hash|string|stream|zset|list)", keys.__doc__, re.MULTILINE)
    patterns = {(MODEL if start == "…:" else start) + re.sub(r"[A-Z]+(:[A-Z]+)*", "*", rest) for start, rest in named}
    assert patterns == KEYS.keys() - {MODEL, TENANT}


def test_every_script_is_somebody_s() -> None:
    parts = {part for preludes in scripts.PRELUDES.values() for part in preludes} | {"prelude", "pace"}
    run = {path.stem for path in scripts.FOLDER.glob("*.lua")} - parts
    assert run == {name for names in SCRIPTS.values() for name in names}


@pytest.mark.parametrize("role", ROLES)
def test_everything_is_forbidden_before_something_is_allowed(role: Role) -> None:
    first, *others = [rule for rule in rules(role) if rule[0] in "+-"]
    assert first == "-@all"
    assert not [rule for rule in others if "@" in rule or rule.startswith("-")]


def test_passwords_are_printed_as_hashes_alone(files: list[str]) -> None:
    text = printed(*files)
    assert not [role for role in ROLES if password_of(role) in text]
    assert len(re.findall(r" #[0-9a-f]{64} ", text)) == len(ROLES)


async def test_the_commands_change_one_user_and_take_an_old_password_with_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("one")
    (tmp_path / "new").write_text("two")
    options = ["--role", "worker", "--format", "commands"]
    command = printed(*options, "--password-file", str(tmp_path / "old"), "--password-file", str(tmp_path / "new"))
    async with Valkey() as server, Redis.from_url(server.url) as operator:
        await operator.execute_command(*command.split())  # type: ignore[no-untyped-call]
        assert await operator.ping()
        for password in ("one", "two"):
            async with connect(server.url.replace("//", f"//worker:{password}@")) as redis:
                assert await redis.ping()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--password-file", "worker=missing"], "No such file"),
        (["--password-file", "missing"], "whose password"),
        (["--password-file", "nobody=missing"], "none of the roles"),
        (["--role", "worker", "--password-file", __file__], "must hold one line"),
        (["--role", "worker", "--password-file", "worker=/dev/null"], "must hold one line"),
    ],
)
def test_what_cannot_be_a_password_file_is_refused(options: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["redis-acl", *options])
    assert done.exit_code == 2
    assert said in done.output
