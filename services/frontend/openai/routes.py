"""Which path of OpenAI's API does what."""

from collections.abc import Sequence
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from services.frontend.admission import Admission
from services.frontend.models import Models
from services.frontend.openai import embeddings, listing
from services.frontend.openai.border import Border, not_found
from services.frontend.openai.generation import Generation
from services.frontend.openai.options import Options
from services.frontend.openai.styles import Chat, Text
from services.frontend.relay import Relays
from services.frontend.tasks import Tasks

PATHS = (("/completions", Text()), ("/chat/completions", Chat()))
EXPOSED = ("Last-Event-ID", "millrace-job-id", "x-request-id", "retry-after", "retry-after-ms")
"""Headers of an answer that a page of another origin may read."""


def make_openai(
    border: Border,
    options: Options,
    admission: Admission,
    relays: Relays,
    models: Models,
    tasks: Tasks,
    cors_origins: Sequence[str] = (),
) -> Starlette:
    """The application that is mounted at /v1."""
    routes = [
        border.route("GET", "/models", partial(listing.list_models, models)),
        border.route("GET", "/models/{model:path}", partial(listing.show_model, models)),
        border.route("POST", "/embeddings", partial(embeddings.embed, tasks, options)),
    ]
    for path, style in PATHS:
        generation = Generation(style, admission, relays, options, border.metrics.streams)
        routes.append(border.route("POST", path, generation.begin))
        routes.append(border.route("GET", path, generation.resume))
    middleware = [_cors(cors_origins)] if cors_origins else []
    return Starlette(routes=routes, middleware=middleware, exception_handlers={HTTPException: not_found})


def _cors(origins: Sequence[str]) -> Middleware:
    return Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=EXPOSED,
    )
