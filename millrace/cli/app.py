"""The commands and their options."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from millrace.cli import calls, repository, tasks
from millrace.cli import infer as tensors
from millrace.cli.embedded import EmbeddedMissing
from millrace.cli.evaluate import evaluate
from millrace.cli.export import export
from millrace.cli.keys import keys_app
from millrace.cli.load import load_app
from millrace.cli.optimize import optimize
from millrace.cli.options import Model
from millrace.cli.plan import plan
from millrace.cli.redis import redis_acl
from millrace.cli.service import Service, calling
from millrace.cli.top import top
from millrace.cli.up import Plan, check
from millrace.cli.up import up as run_fleet

app = typer.Typer(
    help="Large models as a service: streams that survive the death of any process.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
)

Redis = Annotated[str | None, typer.Option("--redis", metavar="URL", help="Unset: redis://127.0.0.1:6379/0.")]
Models = Annotated[
    str,
    typer.Option(
        "--models",
        metavar="DIR|URL",
        help="The model repository: NAME/VERSION/, model.yaml or a graph in it; or where such a folder is, as s3://….",
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option("--device", help="auto takes a GPU where there is one.")
]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
Patience = Annotated[
    float | None, typer.Option("--timeout", min=1, metavar="SECONDS", help="How long to wait; unset: 10 minutes.")
]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="What the processes say.")]


@app.command()
def up(
    redis: Annotated[str | None, typer.Option(metavar="URL", help="Redis or Valkey; unset: an embedded one.")] = None,
    frontends: Annotated[int, typer.Option(min=1, help="Frontend processes, each with ports of its own.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    models: Models = "models",
    device: Device = "auto",
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="The first frontend's; 0: any free one.")] = 8001,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="The first frontend's; 0: any free one.")] = 8002,
    log_level: LogLevel = "warning",
    openai: Annotated[bool, typer.Option(help="Serve OpenAI's HTTP API too, on the HTTP ports.")] = True,
    page: Annotated[bool, typer.Option(help="Serve the page too: the fleet live, and a playground.")] = True,
) -> None:
    """Run everything on this machine: Redis, frontends and workers. Ctrl-C drains and stops.

    Prints `millrace ready grpc=HOST:PORT[,…] http=HOST:PORT[,…]` when every model is ready.

    [bold]millrace up[/bold]
    [bold]millrace up --frontends 2 --workers 2 --redis redis://127.0.0.1:6379/0[/bold]
    """
    plan = Plan(
        redis_url=redis,
        frontends=frontends,
        workers=workers,
        models=models,
        device=device,
        grpc_port=grpc_port,
        http_port=http_port,
        log_level=log_level,
        openai=openai,
        page=page,
    )
    if (problem := check(plan)) is not None:
        fail(problem)
    try:
        raise typer.Exit(asyncio.run(run_fleet(plan)))
    except EmbeddedMissing as error:
        fail(str(error))


@app.command()
def frontend(
    redis: Redis = None,
    grpc_address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Unset: 127.0.0.1:8001.")] = None,
    http_address: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Unset: 127.0.0.1:8002.")] = None,
) -> None:
    """Run one frontend in this process. All settings: python -m services.frontend --help"""
    become(
        "services.frontend",
        MILLRACE_REDIS_URL=redis,
        MILLRACE_GRPC_ADDRESS=grpc_address,
        MILLRACE_HTTP_ADDRESS=http_address,
    )


@app.command()
def worker(
    redis: Redis = None,
    models: Annotated[str | None, typer.Option(metavar="DIR|URL", help="The model repository. Unset: models.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Unset: auto.")] = None,
) -> None:
    """Run one worker in this process. All settings: python -m services.worker --help"""
    become("services.worker", MILLRACE_REDIS_URL=redis, MILLRACE_MODELS=models, MILLRACE_DEVICE=device)


@app.command()
@calling
def generate(
    service: Service,
    model: Model,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="The text to continue; - reads standard input.")],
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest completion, in tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0: always the likeliest token.")] = None,
    top_k: Annotated[int | None, typer.Option(min=0, help="Draw among so many likeliest tokens; 0: all.")] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Draw among the likeliest that have this share.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave out what is rarer than this × the likeliest.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed draws the same text.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="Over prompt and output; 1: none.")] = None,
    frequency_penalty: Annotated[float | None, typer.Option(min=-2, max=2, help="By how often it came.")] = None,
    presence_penalty: Annotated[float | None, typer.Option(min=-2, max=2, help="For all that came.")] = None,
    completions: Annotated[int | None, typer.Option("--completions", "-n", min=1, max=16, help="How many.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be repeated.")] = None,
    json_schema: Annotated[
        str | None, typer.Option("--json-schema", metavar="@FILE|JSON", help="Write JSON that this schema allows.")
    ] = None,
    regex: Annotated[str | None, typer.Option(help="Write what this regular expression matches.")] = None,
    grammar: Annotated[
        str | None, typer.Option(metavar="@FILE|LARK", help="Write what this grammar in Lark's notation derives.")
    ] = None,
    choice: Annotated[list[str] | None, typer.Option(help="Write one of these; may be repeated.")] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="The prompt is a user's message, for the model's chat template.")
    ] = False,
    system: Annotated[str | None, typer.Option(help="The system's message before it; with --chat.")] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Print tokens, rate and time to first token at the end.")
    ] = False,
) -> None:
    """Stream a completion to standard output.

    [bold]millrace generate -m pycode -p 'def fibonacci(' --max-tokens 80[/bold]
    [bold]cat half.py | millrace generate -m pycode -p - --temperature 0[/bold]
    [bold]millrace generate -m pycode -p 'level = ' --choice debug --choice info[/bold]
    [bold]millrace generate -m assistant --chat -p 'Where is Ulm?' --json-schema @place.json[/bold]
    """
    options = {
        "repetition_penalty": repetition_penalty,
        "frequency_penalty": frequency_penalty,
        "presence_penalty": presence_penalty,
        "num_completions": completions,
        "json_schema": _text(json_schema),
        "regex": regex,
        "grammar": _text(grammar),
        "choices": choice or [],
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "seed": seed,
        "stop_strings": stop or [],
    }
    text = sys.stdin.read() if prompt == "-" else prompt
    messages = [("system", system)] if system else []
    asked = [{"role": role, "content": content} for role, content in (*messages, ("user", text))] if chat else text
    raise typer.Exit(calls.run(calls.generate(service, model, asked, options, stats=stats)))


@app.command()
@calling
def infer(
    service: Service,
    model: Model,
    inputs: Annotated[
        list[str],
        typer.Option("--input", "-i", metavar="NAME=@FILE|JSON", help="A .npy file as it is, or JSON; one for each."),
    ],
    outputs: Annotated[
        list[str] | None,
        typer.Option("--output", "-o", metavar="NAME=FILE", help="Save this output as a .npy file; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outputs as JSON, with all their values.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Print bytes and time at the end.")] = False,
) -> None:
    """Run a model once over named arrays and print its outputs.

    A file's array is sent with its own dtype and shape; JSON becomes what the model takes.

    [bold]millrace infer -m digits -i x=@images.npy[/bold]
    [bold]millrace infer -m digits -i x=@images.npy -o probabilities=p.npy --stats[/bold]
    [bold]millrace infer -m prices -i area='[[52.5], [80]]' -i town='[["Ulm"], ["Jena"]]' --json[/bold]
    """
    asked = tensors.Asked(model=model, inputs=inputs, outputs=outputs or [], as_json=as_json, stats=stats)
    raise typer.Exit(calls.run(tensors.infer(service, asked)))


for command in (tasks.embed, tasks.classify, tasks.transcribe, top, plan, export, optimize, evaluate, redis_acl):
    app.command()(command)
app.add_typer(load_app, name="load")
app.add_typer(keys_app, name="keys")


@app.command()
@calling
def models(
    service: Service,
    everything: Annotated[
        bool, typer.Option("--all", help="Every version in the repository: its state, and why it is in it.")
    ] = False,
) -> None:
    """List what is served, by how many workers, and how long a new job would wait."""
    raise typer.Exit(calls.run(repository.show(service) if everything else calls.models(service)))


@app.command()
@calling
def load_model(service: Service, model: ModelName, timeout: Patience = None) -> None:
    """Have every worker load a model, or load anew what has changed of it, and wait until all have.

    [bold]millrace load-model pycode[/bold]
    """
    raise typer.Exit(calls.run(repository.load(service, model, timeout)))


@app.command()
@calling
def unload_model(service: Service, model: ModelName, timeout: Patience = None) -> None:
    """Have every worker unload a model, once the jobs that were accepted are done, and wait until all have.

    [bold]millrace unload-model pycode[/bold]
    """
    raise typer.Exit(calls.run(repository.unload(service, model, timeout)))


def _text(given: str | None) -> str | None:
    """What is given, or what stands in the file that is named by it."""
    if given is None or not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{given[1:]}: {error}")


def become(module: str, **environment: str | None) -> None:
    """Replaces this process by `python -m module`. Options that were not given leave the environment as it is."""
    given = {name: value for name, value in environment.items() if value is not None}
    os.execve(sys.executable, [sys.executable, "-m", module], os.environ | given)


def fail(problem: str) -> NoReturn:
    typer.echo(f"millrace: {problem}", err=True)
    raise typer.Exit(2)
