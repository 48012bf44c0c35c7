"""Which service a command calls, on whose behalf, and how both know each other."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from millrace import AsyncClient, Tls
from millrace.cli.spread import spread
from millrace.errors import InvalidRequest, Violation

P = ParamSpec("P")
WHERE = "The service"
KNOCK_S = 2.0


def option(name: str, variable: str, **settings: Any) -> Any:
    return typer.Option(name, envvar=variable, rich_help_panel=WHERE, **settings)


def file(name: str, variable: str, meaning: str) -> Any:
    return option(name, variable, metavar="FILE", help=meaning)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """As the options say."""

    address: Annotated[
        str, option("--address", "MILLRACE_ADDRESS", metavar="HOST:PORT[,…]", help="Frontends to call.")
    ] = "127.0.0.1:8001"
    tenant: Annotated[
        str | None, option("--tenant", "MILLRACE_TENANT", help="On whose behalf, where the service asks for no key.")
    ] = None
    api_key: Annotated[
        str | None,
        option(
            "--api-key",
            "MILLRACE_API_KEY",
            metavar="KEY",
            help="Who calls: an API key or a JWT. Others on this machine may see options: prefer the variable.",
        ),
    ] = field(default=None, repr=False)
    tls: Annotated[bool, option("--tls", "MILLRACE_CLIENT_TLS", help="Call by TLS; the options below imply it.")] = (
        False
    )
    tls_ca: Annotated[
        Path | None,
        file("--tls-ca", "MILLRACE_CLIENT_TLS_CA", "The authorities that are trusted, PEM. Unset: this machine's."),
    ] = None
    tls_cert: Annotated[
        Path | None, file("--tls-cert", "MILLRACE_CLIENT_TLS_CERT", "The certificate to show, PEM.")
    ] = None
    tls_key: Annotated[Path | None, file("--tls-key", "MILLRACE_CLIENT_TLS_KEY", "Its key, PEM.")] = None
    tls_name: Annotated[
        str, option("--tls-name", "MILLRACE_CLIENT_TLS_NAME", help="The name in the frontends' certificates.")
    ] = ""

    @property
    def addresses(self) -> list[str]:
        return self.address.split(",")

    @property
    def by_tls(self) -> bool:
        return bool(self.tls or self.tls_ca or self.tls_cert or self.tls_key or self.tls_name)

    def client(self, *addresses: str, retry_s: float = 30.0) -> AsyncClient:
        """Of all frontends, or of these. Raises InvalidRequest where the files of TLS cannot be used."""
        return AsyncClient(
            *addresses or self.addresses,
            tenant=self.tenant,
            api_key=self.api_key,
            tls=self._tls() or False,
            retry_s=retry_s,
        )

    def knocking(self) -> AsyncClient:
        """A client that raises Unavailable soon where nobody answers, since somebody sits and waits."""
        return self.client(retry_s=KNOCK_S)

    def _tls(self) -> Tls | None:
        if not self.by_tls:
            return None
        try:
            tls = Tls(ca=self.tls_ca, cert=self.tls_cert, key=self.tls_key, server_name=self.tls_name)
            tls.credentials()
        except ValueError as error:
            raise InvalidRequest([Violation("--tls", str(error))]) from None
        return tls


def calling(command: Callable[Concatenate[Service, P], None]) -> Callable[..., None]:
    """The command with the service's options behind its own."""
    return spread(Service, command, last=True)
