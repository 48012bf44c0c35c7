"""What stands around every request of the page: what does around OpenAI's, and a fence."""

from functools import partial

from starlette.responses import Response
from starlette.routing import Route

from services.frontend.access.gate import Gate
from services.frontend.metrics import Metrics
from services.frontend.openai.border import Behaviour, Endpoint
from services.frontend.openai.exchange import Exchange
from services.frontend.page.guard import Fenced, Guard


class Border:
    """Makes the page's routes."""

    def __init__(self, metrics: Metrics, slow_reader_s: float, guard: Guard, gate: Gate) -> None:
        self._metrics, self._slow_reader_s, self._guard, self._gate = metrics, slow_reader_s, guard, gate

    def file(self, path: str, body: bytes, media_type: str) -> Route:
        response = Response(body, media_type=media_type, headers={"cache-control": "no-cache"})
        return Route(path, Fenced(response, self._guard.check_host), methods=["GET"])

    def route(self, method: str, path: str, behaviour: Behaviour, most_bytes: int = 0, *, admin: bool = False) -> Route:
        """`most_bytes` may be in the request's body, which the behaviour finds whole in its exchange. `admin`: only
        administrators may ask."""
        reading = partial(Exchange.read, most_bytes=most_bytes)
        name = f"{method} {path}"
        endpoint = Endpoint(name, self._metrics, self._slow_reader_s, reading, behaviour, self._gate, admin=admin)
        return Route(path, Fenced(endpoint, self._guard.check_caller), methods=[method])
