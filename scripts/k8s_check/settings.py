"""Whether what pods are told is what the services know, and enough."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from millrace.queue.server import Server
from millrace.settings import Settings
from scripts.k8s_check.pods import Pod, service_of
from services.frontend.settings import FrontendSettings
from services.worker.settings import WorkerSettings

CLASSES: dict[str, type[Settings]] = {"frontend": FrontendSettings, "worker": WorkerSettings}
PREFIX = "MILLRACE_"
PORTS = {
    "frontend": {
        "grpc_address": "grpc",
        "http_address": "http",
        "health_address": "health",
        "scaler_address": "scaler",
    },
    "worker": {"http_address": "health"},
}
"""Which port of the container an address is."""


def known(pod: Pod) -> Iterator[str]:
    """Every name is a setting's, and every value one that it takes."""
    service = service_of(pod)
    if service is None:
        return
    settings = CLASSES[service]
    told = {name.removeprefix(PREFIX).lower(): value for name, value in pod.settings.items()}
    for name in told.keys() - settings.model_fields.keys():
        yield f"{PREFIX}{name.upper()} is no setting of a {service}"
    try:
        settings(**{name: value for name, value in told.items() if name in settings.model_fields})  # type: ignore[arg-type]
    except ValidationError as error:
        for wrong in error.errors():
            yield f"{PREFIX}{str(wrong['loc'][0]).upper()}: {wrong['msg']}"


def addresses(pod: Pod) -> Iterator[str]:
    """Every address is a port that the container names, of the same number, and every port an address."""
    service = service_of(pod)
    if service is None:
        return
    ports = {port["name"]: port["containerPort"] for port in pod.spec["containers"][0].get("ports", ())}
    said = {}
    for setting, port in PORTS[service].items():
        address = pod.settings.get(f"{PREFIX}{setting.upper()}", "")
        if address:
            said[port] = int(address.rpartition(":")[2])
    if said != ports:
        yield f"the container's ports are {ports}, its addresses {said}"


def secured(pod: Pod) -> Iterator[str]:
    """What MILLRACE_SECURITY=required refuses to start without (services/frontend/security.py). The files themselves
    are not there to be read."""
    service = service_of(pod)
    told = pod.settings
    if service is None or told.get("MILLRACE_SECURITY") != "required":
        return
    password = told.get("MILLRACE_REDIS_PASSWORD_FILE")
    weakness = Server(url=told["MILLRACE_REDIS_URL"], password_file=Path(password) if password else None).weakness
    if weakness:
        yield f"MILLRACE_SECURITY=required, and {weakness}"
    if service == "frontend":
        for name in ("MILLRACE_TLS_CERT", "MILLRACE_TLS_KEY", "MILLRACE_HEALTH_ADDRESS"):
            if name not in told:
                yield f"MILLRACE_SECURITY=required, and no {name}"
        if not told.keys() & {"MILLRACE_API_KEYS", "MILLRACE_JWKS"}:
            yield "MILLRACE_SECURITY=required, and nothing that tells callers apart"


def mounted(pod: Pod) -> Iterator[str]:
    """Every file that a setting names lies in something that is mounted."""
    service = service_of(pod)
    if service is None:
        return
    places = [str(mount["mountPath"]) for mount in pod.spec["containers"][0].get("volumeMounts", ())]
    for name, value in pod.settings.items():
        if value.startswith("/") and not any(value == place or value.startswith(f"{place}/") for place in places):
            yield f"{name}={value} is in no volume"


def models(pod: Pod) -> Iterator[str]:
    """A worker's come from somewhere: a volume or a URL."""
    if service_of(pod) == "worker" and "MILLRACE_MODELS" not in pod.settings:
        yield "no MILLRACE_MODELS: a component models-… is missing"
