"""Which path of the page does what."""

from functools import partial
from pathlib import Path

from starlette.routing import Route

from millrace.queue import JobQueue
from services.frontend.admission import Admission
from services.frontend.page.border import Border
from services.frontend.page.feed import Feed
from services.frontend.page.playing import cancel, classify, transcribe
from services.frontend.relay import Relays
from services.frontend.rules import Bounds
from services.frontend.tasks import Tasks

TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
START = "page.html"
STATIC = Path(__file__).parent / "static"
FILES = {path.name: path.read_bytes() for path in sorted(STATIC.iterdir()) if path.suffix in TYPES}
"""What the browser gets, read once."""


def make_page(
    border: Border, feed: Feed, tasks: Tasks, queue: JobQueue, admission: Admission, relays: Relays, bounds: Bounds
) -> list[Route]:
    files = [
        border.file("/" if name == START else f"/page/{name}", body, TYPES[Path(name).suffix])
        for name, body in FILES.items()
    ]
    most_bytes = bounds.max_tensor_bytes
    return [
        *files,
        border.route("GET", "/page/fleet", feed.follow, admin=True),
        border.route("POST", "/page/classify", partial(classify, tasks, bounds), most_bytes),
        border.route("POST", "/page/transcribe", partial(transcribe, admission, relays, bounds), most_bytes),
        border.route("POST", "/page/cancel", partial(cancel, queue, admission)),
    ]
