"""Which Redis, and how it is proved to be the right one: a URL, and files with the secrets that belong to it.

    redis://[USER:PASSWORD@]HOST[:PORT][/DB]                    one server; rediss:// by TLS
    unix://[USER:PASSWORD@]/PATH[?db=DB]                        one server on this machine
    redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/NAME[/DB]    the primary that these Sentinels name; by TLS rediss+…
        ?sentinel_user=…&sentinel_password_file=…               what the Sentinels themselves want to be told; or
        ?sentinel_password=…                                    the password itself
    redis+cluster://[USER:PASSWORD@]HOST[:PORT],…               a cluster, found through any of these; by TLS rediss+…

Names and passwords in a URL are percent-encoded. Nothing in a URL weakens TLS: the certificate and the host's name in
it are always checked.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

Kind = Literal["single", "unix", "sentinel", "cluster"]
Address = tuple[str, int]
"""Host and port."""

PORT, SENTINEL_PORT = 6379, 26379
SCHEMES: Mapping[str, tuple[Kind, bool]] = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "unix": ("unix", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
"""What stands before `://` → what is there, and whether by TLS."""
OPTIONS: Mapping[Kind, frozenset[str]] = {
    "single": frozenset({"db"}),
    "unix": frozenset({"db"}),
    "sentinel": frozenset({"sentinel_user", "sentinel_password", "sentinel_password_file"}),
    "cluster": frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a server is told first. The file is read for each connection, so that a password may change."""

    user: str = ""
    password: str = field(default="", repr=False)
    file: Path | None = None

    def __bool__(self) -> bool:
        return bool(self.user or self.password or self.file)

    def read(self) -> str:
        """The password. Raises OSError where the file cannot be read, and ValueError where it holds none."""
        return self.password if self.file is None else read_password(self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A URL that was understood."""

    kind: Kind
    tls: bool
    login: Login
    addresses: tuple[Address, ...] = ()
    """Of the server, the Sentinels, or some of the cluster's nodes."""
    path: str = ""
    """Of a socket."""
    primary: str = ""
    """Its name with the Sentinels."""
    sentinel_login: Login = Login()
    db: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What `connect` connects to."""

    url: str = field(repr=False)
    password_file: Path | None = None
    """For the URL's user; read for each connection."""
    ca: Path | None = None
    """Certificates, PEM, of which one must have signed the server's; unset: the system's."""
    cert: Path | None = None
    """The certificate that is shown to the server, PEM, and its key, which may be in the same file. All three are read
    for each connection."""
    key: Path | None = None

    def place(self) -> Place:
        """Raises ValueError where the URL says nothing that can be done, or a file means nothing with it."""
        place = _parse(self.url, self.password_file)
        if not place.tls and (self.ca or self.cert or self.key):
            raise ValueError("certificates for Redis are of no use to a URL without TLS: rediss:// is with it")
        if self.key and not self.cert:
            raise ValueError("a key for Redis needs its certificate")
        return place

    def check(self) -> None:
        """Raises ValueError where a connection cannot be made because of what is said here."""
        place = self.place()
        try:
            for file in filter(None, (self.ca, self.cert, self.key)):
                file.read_bytes()
            for login in (place.login, place.sentinel_login):
                login.read()
            if place.tls:
                self.context()
        except ssl.SSLError as error:
            raise ValueError(f"the certificates for Redis cannot be used: {error}") from None
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from None

    def context(self) -> ssl.SSLContext:
        """For a new connection: TLS 1.2 at least. Raises OSError where a file cannot be read or used."""
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert:
            context.load_cert_chain(self.cert, self.key)
        return context

    @property
    def weakness(self) -> str:
        """Why a Redis at this URL, or whoever calls it, could be anybody; empty where that is not so."""
        place = self.place()
        if place.kind == "unix":
            return ""
        if not place.tls:
            return "Redis is reached without TLS: MILLRACE_REDIS_URL=rediss://…"
        if not (place.login.password or place.login.file or self.cert):
            return "Redis is told no password, and shown no certificate: MILLRACE_REDIS_PASSWORD_FILE"
        return ""

    def describe(self) -> str:
        """The URL without its secrets, whether it can be understood or not."""
        scheme, _, rest = self.url.partition("://")
        place, _, options = rest.partition("?")
        if "@" in options:
            return f"{scheme}://***"
        _, at, hosts = place.rpartition("@")
        return f"{scheme}://{'***@' if at else ''}{hosts}"


def read_password(file: Path) -> str:
    """A file's only line. Raises OSError where it cannot be read, and ValueError where it is empty, or has more."""
    password = file.read_text().removesuffix("\n").removesuffix("\r")
    if not password or "\n" in password:
        raise ValueError(f"{file} must hold one line, a password")
    return password


def _parse(url: str, password_file: Path | None) -> Place:
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES:
        raise ValueError(f"a Redis URL begins with {', '.join(f'{known}://' for known in SCHEMES)}")
    kind, tls = SCHEMES[scheme]
    rest, _, query = rest.partition("?")
    options = _options(kind, query)
    authority, slash, path = rest.partition("/")
    userinfo, _, hosts = authority.rpartition("@")
    login = _login(userinfo, password_file)
    if kind == "unix":
        return Place(kind=kind, tls=tls, login=login, path=unquote(slash + path), db=_db(options.get("db", "")))
    port = SENTINEL_PORT if kind == "sentinel" else PORT
    addresses = tuple(_address(host, port) for host in hosts.split(","))
    if kind == "single" and len(addresses) > 1:
        raise ValueError("a redis:// URL names one server: several are redis+sentinel:// or redis+cluster://")
    primary, _, db = path.partition("/") if kind == "sentinel" else ("", "", path)
    if kind == "sentinel" and not primary:
        raise ValueError("a redis+sentinel:// URL names the primary: redis+sentinel://HOST:PORT,…/NAME")
    number = _db(options.get("db", db))
    if kind == "cluster" and number:
        raise ValueError("a cluster has no databases but 0")
    return Place(
        kind=kind,
        tls=tls,
        login=login,
        addresses=addresses,
        primary=unquote(primary),
        sentinel_login=_sentinel_login(options),
        db=number,
    )


def _options(kind: Kind, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := options.keys() - OPTIONS[kind]:
        raise ValueError(f"a Redis URL of this kind takes no {', '.join(sorted(unknown))}")
    return options


def _login(userinfo: str, file: Path | None) -> Login:
    user, _, password = (unquote(part) for part in userinfo.partition(":"))
    return _one_password(user, password, file)


def _sentinel_login(options: Mapping[str, str]) -> Login:
    file = options.get("sentinel_password_file")
    user, password = options.get("sentinel_user", ""), options.get("sentinel_password", "")
    return _one_password(user, password, Path(file) if file else None)


def _one_password(user: str, password: str, file: Path | None) -> Login:
    if password and file:
        raise ValueError("Redis' password is in the URL and in a file: one of them must go")
    return Login(user=user, password=password, file=file)


def _address(host: str, port: int) -> Address:
    """Raises ValueError where there is a port that is none."""
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname or "localhost", port if parts.port is None else parts.port
    except ValueError:
        raise ValueError("in a Redis URL, each host is HOST or HOST:PORT") from None


def _db(text: str) -> int:
    if text and not text.isdecimal():
        raise ValueError("in a Redis URL, the database is a number")
    return int(text or 0)
