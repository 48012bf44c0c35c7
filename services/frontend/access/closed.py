"""What has no border of its own, and is for administrators."""

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from millrace.errors import MillraceError
from services.frontend.access.credentials import Credentials
from services.frontend.access.gate import Gate
from services.frontend.openai.errors import to_refusal
from services.frontend.openai.exchange import JSON


class Closed:
    """An application that only administrators may ask."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app, self._gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        try:
            caller = self._gate.admit(Credentials.of(Headers(scope=scope).items()))
            caller.policy.require_admin()
        except MillraceError as error:
            refusal = to_refusal(error)
            app = Response(refusal.body, refusal.status, refusal.headers, JSON)
        await app(scope, receive, send)
