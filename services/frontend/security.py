"""What stands open of a frontend."""

from millrace.security import check_closed
from services.frontend.settings import FrontendSettings


def check_security(settings: FrontendSettings) -> None:
    """Raises ValueError where security is required and something is open.

    A caller's certificate is no substitute for keys: it names no tenant.
    """
    doors = {
        "gRPC and HTTP are in plaintext: MILLRACE_TLS_CERT and MILLRACE_TLS_KEY": settings.tls_cert is None,
        "anybody may call, as any tenant: MILLRACE_API_KEYS or MILLRACE_JWKS": not (settings.api_keys or settings.jwks),
        "metrics stand on the callers' port: MILLRACE_HEALTH_ADDRESS": not settings.health_address,
    }
    check_closed(settings, [door for door, is_open in doors.items() if is_open])
