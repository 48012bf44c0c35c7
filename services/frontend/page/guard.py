"""Who may ask, and what the browser is told that the page may do.

The page may do what its reader may, so other pages must not do it in the reader's name. A browser says where a request
comes from (Sec-Fetch-Site, Origin), and sends a header of ours to another origin only where that allows it, which
nobody does here. A name in a foreign domain that leads to this address (DNS rebinding) is told by the Host: it is an IP
address, localhost, or a name that the settings list.
"""

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millrace.errors import Code, MillraceError
from services.frontend.openai.errors import to_refusal
from services.frontend.openai.exchange import JSON

OWN_HEADER = "millrace-page"
"""Its value does not matter: that it is there says that a script of ours has sent it."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' blob: data:",
        "media-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
OWN_SITES = ("same-origin", "none")
"""Of Sec-Fetch-Site; the second is a person who has typed the address. Only some addresses are told of it."""
NAME_CHARACTERS = 200


class Foreign(MillraceError):
    """The request does not come from the page, or not to a name under which it is served."""

    code = Code.PERMISSION_DENIED

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="FOREIGN_PAGE")


class Guard:
    """`hosts` are the names that the page may be asked under, besides those that are always its."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = frozenset(map(str.lower, hosts))

    def check_host(self, headers: Headers) -> None:
        """Raises Foreign."""
        name = _split(f"//{headers.get('host', '')}").hostname or ""
        if not (_is_local(name) or name in self._hosts):
            text = (
                f"the page is not served under the name {name[:NAME_CHARACTERS]}: MILLRACE_PAGE_HOSTS lists its names"
            )
            raise Foreign(text)

    def check_caller(self, headers: Headers) -> None:
        """Raises Foreign."""
        self.check_host(headers)
        origin = headers.get("origin")
        if origin is not None and _split(origin).netloc.lower() != headers.get("host", "").lower():
            raise Foreign("only the page itself may ask this")
        if headers.get("sec-fetch-site", OWN_SITES[0]) not in OWN_SITES or OWN_HEADER not in headers:
            raise Foreign("only the page itself may ask this")


class Fenced:
    """An application that is asked where `check` raises nothing, and whose answers have the page's headers."""

    def __init__(self, app: ASGIApp, check: Callable[[Headers], None]) -> None:
        self._app, self._check = app, check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_fenced(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        app = self._app
        try:
            self._check(Headers(scope=scope))
        except Foreign as error:
            refusal = to_refusal(error)
            app = Response(refusal.body, refusal.status, refusal.headers | {"connection": "close"}, JSON)
        await app(scope, receive, send_fenced)


def _split(text: str) -> SplitResult:
    """Of what is no address: nothing."""
    try:
        split = urlsplit(text)
        _ = split.hostname
    except ValueError:
        return urlsplit("")
    return split


def _is_local(name: str) -> bool:
    """What no name server can make lead here."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
