"""Why a connection cannot be made, in words, where both sides would talk but do not agree on TLS.

gRPC tells what OpenSSL says of a handshake; where the other side has hung up it tells nothing, and a handshake of our
own finds out.
"""

import asyncio
import ssl

from millrace.client.tls import Tls
from millrace.errors import Unavailable

PROBE_S = 1.0
NOT_CONNECTED, HUNG_UP = "failed to connect", "Socket closed"
UNTRUSTED = ("unable to get local issuer", "self signed", "self-signed", "unable to get issuer")


async def diagnose(address: str, tls: Tls | None, text: str) -> Unavailable | None:
    """`text`: what gRPC says of the call. None where it is not about TLS, and another attempt may do better."""
    if NOT_CONNECTED not in text:
        return None
    if HUNG_UP in text:
        return await _ask_plainly(address) if tls is None else await _ask_with_tls(address, tls)
    name = tls.server_name if tls is not None and tls.server_name else address.rpartition(":")[0]
    if "WRONG_VERSION_NUMBER" in text:
        return _problem("TLS_UNSPOKEN", f"{address} speaks no TLS, and this client does")
    if "ALPN" in text:
        return _problem("NOT_GRPC", f"what answers at {address} by TLS speaks no gRPC")
    if "Hostname Verification" in text:
        return _problem("CERTIFICATE_NAME", f"the certificate that {address} shows is not one of {name}")
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return _distrust(address, text.partition("CERTIFICATE_VERIFY_FAILED: ")[2])
    return None


def _distrust(address: str, found: str) -> Unavailable:
    found = found.partition(":")[0]
    if any(words in found for words in UNTRUSTED):
        return _problem(
            "CERTIFICATE_UNTRUSTED", f"the certificate that {address} shows is of no authority that this client trusts"
        )
    reason = "CERTIFICATE_EXPIRED" if "expired" in found else "CERTIFICATE_INVALID"
    return _problem(reason, f"the certificate that {address} shows is not valid: {found}")


async def _ask_plainly(address: str) -> Unavailable | None:
    """Whether it is that TLS is spoken there."""
    if await _is_left_alone(address, ssl.create_default_context()) is None:
        return None
    return _problem("TLS_SPOKEN", f"{address} speaks TLS, and this client does not")


async def _ask_with_tls(address: str, tls: Tls) -> Unavailable | None:
    """Whether it is that our own certificate, or the lack of one, is the reason."""
    try:
        context = tls.context()
    except OSError:
        return None
    if not await _is_left_alone(address, context):
        return None
    wanted = "asks this client for a certificate" if tls.cert is None else "does not take this client's certificate"
    return _problem("CALLER_CERTIFICATE", f"{address} {wanted}")


async def _is_left_alone(address: str, context: ssl.SSLContext) -> bool | None:
    """Whether the other side hangs up after the handshake, before it says a word; None where there is no handshake."""
    host, _, port = address.rpartition(":")
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(PROBE_S):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
    except (OSError, ValueError):
        return None
    try:
        async with asyncio.timeout(PROBE_S):
            return not await reader.read(1)
    except TimeoutError:
        return False
    except OSError:
        return True
    finally:
        writer.transport.abort()


def _problem(reason: str, message: str) -> Unavailable:
    return Unavailable(message, reason=reason)
