"""What one frontend consists of, and how the parts know each other."""

from starlette.routing import BaseRoute, Mount, Route

from millrace.queue import Commands, Durability, Fast, JobQueue, Mailbox, Quotas, Registry, Replicated, Statistics
from millrace.queue.connection import Redis
from services.frontend import fleet, jobs, servicer
from services.frontend.access.gate import Gate, OpenGate
from services.frontend.access.spending import Spending
from services.frontend.admission import Admission
from services.frontend.border import Border, Method
from services.frontend.cache import ResponseCache
from services.frontend.fleet import Fleet
from services.frontend.fleet_metrics import FleetMetrics
from services.frontend.health import make_health
from services.frontend.interest import Interest
from services.frontend.jobs import Jobs
from services.frontend.memory import Memory
from services.frontend.metrics import Metrics
from services.frontend.models import Models
from services.frontend.oip import inference
from services.frontend.oip.catalogue import Catalogue
from services.frontend.oip.extensions import Extensions
from services.frontend.oip.inference import Inference
from services.frontend.oip.repository import Repository
from services.frontend.oip.statistics import ModelStatistics
from services.frontend.openai import border as openai_border
from services.frontend.openai.options import Options
from services.frontend.openai.routes import make_openai
from services.frontend.page import border as page_border
from services.frontend.page.feed import Feed
from services.frontend.page.guard import Guard
from services.frontend.page.routes import make_page
from services.frontend.page.snapshot import Snapshots
from services.frontend.readiness import Readiness
from services.frontend.relay import Relays
from services.frontend.rules import Bounds
from services.frontend.scaler.service import Scaler
from services.frontend.servicer import TextGeneration
from services.frontend.settings import FrontendSettings
from services.frontend.tasks import Tasks
from services.frontend.tracing import Tracing


class Parts:
    """All parts of one frontend; none runs yet. `services` are gRPC's, `health` and `web` are HTTP's."""

    def __init__(
        self, settings: FrontendSettings, calls: Redis, subscription: Redis, barriers: Redis, gate: Gate
    ) -> None:
        self._settings, self._gate = settings, gate
        self.metrics = Metrics()
        self.queue = JobQueue(calls, settings.limits())
        self.mailbox = Mailbox(subscription, settings.frontend_id)
        self.interest = Interest(self.queue, self.mailbox, settings.frontend_id, settings.outage_s)
        self.readiness = Readiness(calls, self.mailbox)
        self.models = Models(Registry(calls))
        self.memory = Memory(calls)
        self.durability: Durability = Fast()
        if settings.durability == "replicated":
            self.durability = Replicated(barriers, replicas=settings.replicas, outage_s=settings.outage_s)
        self.cache = ResponseCache(settings.response_cache_bytes, self.metrics)
        self.totals = Statistics(calls, settings.frontend_id)
        self.border = Border(self.metrics, settings.slow_reader_s, gate)
        self._bounds = Bounds(
            max_request_bytes=settings.max_request_bytes,
            max_tensor_bytes=settings.max_tensor_bytes,
            default_timeout_s=settings.default_timeout_s,
            max_timeout_s=settings.max_timeout_s,
            max_resume_window_s=settings.max_resume_window_s,
        )
        self._admission = Admission(
            self.queue,
            self.models,
            self.readiness,
            self.memory,
            self.durability,
            self.metrics,
            Spending(self.queue, Quotas(calls)),
            weights=settings.tenant_weights,
            scale_from_zero_s=settings.scale_from_zero_s,
        )
        self._tracing = Tracing()
        self._relays = Relays(self.queue, self._admission, self.interest, self.durability, self.metrics, self._tracing)
        self._typed = Tasks(self._admission, self._relays, self._bounds, self.cache)
        self._commands = Commands(calls)
        self.services = self._make_services()
        kedas = Border(self.metrics, settings.slow_reader_s, OpenGate())
        self.scaler = Scaler(self.queue, self.models, self.readiness).methods(kedas)
        fleet_metrics = FleetMetrics(self.queue, self.models, self.totals, self.readiness)
        self.metrics.registry.register(fleet_metrics)
        self.health = make_health(
            self.metrics.registry,
            fleet_metrics.refresh,
            self.readiness,
            self.models,
            OpenGate() if settings.health_address else gate,
        )
        self.web: list[BaseRoute] = []
        if settings.openai:
            self.web.append(self._make_openai())
        if settings.page:
            self.web.extend(self._make_page())

    def _make_services(self) -> dict[str, dict[str, Method]]:
        admission, relays, bounds, border = self._admission, self._relays, self._bounds, self.border
        models, readiness, commanded = self.models, self.readiness, self._settings.model_control
        return {
            servicer.SERVICE: TextGeneration(admission, relays, bounds).methods(border),
            **self._typed.services(border),
            inference.SERVICE: {
                **Catalogue(models, readiness, bounds, caches=self.cache.enabled).methods(border),
                **ModelStatistics(models, self.totals, readiness, bounds).methods(border),
                **Extensions(models, readiness, self._tracing, bounds).methods(border),
                **Inference(admission, relays, bounds, self.cache).methods(border),
                **Repository(models, self._commands, readiness, bounds, commanded=commanded).methods(border),
            },
            jobs.SERVICE: Jobs(self.queue, admission, relays, bounds).methods(border),
            fleet.SERVICE: Fleet(self.queue, models, readiness).methods(border),
        }

    def _make_openai(self) -> Mount:
        settings = self._settings
        border = openai_border.Border(self.metrics, settings.slow_reader_s, settings.max_request_bytes, self._gate)
        options = Options(bounds=self._bounds, resume_window_s=settings.openai_resume_window_s)
        origins = settings.openai_cors_origins
        app = make_openai(border, options, self._admission, self._relays, self.models, self._typed, origins)
        return Mount("/v1", app)

    def _make_page(self) -> list[Route]:
        settings = self._settings
        snapshots = Snapshots(
            self.queue,
            self.models,
            self.totals,
            self.readiness,
            self.metrics,
            frontend_id=settings.frontend_id,
            openai=settings.openai,
        )
        border = page_border.Border(self.metrics, settings.slow_reader_s, Guard(settings.page_hosts), self._gate)
        feed = Feed(snapshots.read, self.readiness)
        return make_page(border, feed, self._typed, self.queue, self._admission, self._relays, self._bounds)
