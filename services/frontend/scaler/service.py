"""KEDA's external scaler: externalscaler.ExternalScaler.

What is not known is told as an error, and never as 0: KEDA and the HorizontalPodAutoscaler then leave the fleet as it
is. A stream says nothing meanwhile, since KEDA comes back to one that failed ever more seldom.
"""

import asyncio
import math

from millrace.errors import InvalidRequest, MillraceError, NotFound, Violation
from millrace.keda.externalscaler_pb2 import (
    GetMetricSpecResponse,
    GetMetricsRequest,
    GetMetricsResponse,
    IsActiveResponse,
    MetricSpec,
    MetricValue,
    ScaledObjectRef,
)
from millrace.queue import JobQueue
from services.frontend.border import Border, Method
from services.frontend.call import Call
from services.frontend.models import Models
from services.frontend.parse import decode
from services.frontend.readiness import Readiness
from services.frontend.scaler.asked import Asked, parse
from services.frontend.scaler.need import Need

SERVICE = "externalscaler.ExternalScaler"
METRICS = ("work", "wait", "busy")
"""Properties of a `Need`, in workers."""
LOOK_S = 0.5
MAX_BYTES = 1 << 16


class Scaler:
    """externalscaler.ExternalScaler. Its callers are KEDA's operator and metrics server, which have no tenant."""

    def __init__(self, queue: JobQueue, models: Models, readiness: Readiness) -> None:
        self._queue, self._models, self._readiness = queue, models, readiness

    def methods(self, border: Border) -> dict[str, Method]:
        return {
            "IsActive": border.unary(f"{SERVICE}/IsActive", self.is_active),
            "StreamIsActive": border.stream(f"{SERVICE}/StreamIsActive", self.stream_is_active),
            "GetMetricSpec": border.unary(f"{SERVICE}/GetMetricSpec", self.get_metric_spec),
            "GetMetrics": border.unary(f"{SERVICE}/GetMetrics", self.get_metrics),
        }

    async def is_active(self, raw: bytes, _call: Call) -> IsActiveResponse:
        need = await self._look(parse(decode(ScaledObjectRef, raw, MAX_BYTES)))
        return IsActiveResponse(result=need.active)

    async def stream_is_active(self, raw: bytes, call: Call) -> None:
        """Ends well with the drain, so that KEDA asks another frontend within seconds."""
        asked = parse(decode(ScaledObjectRef, raw, MAX_BYTES))
        told: bool | None = None
        while not self._readiness.draining:
            active = await self._whether_active(asked, told)
            if active is not None and active != told:
                await call.send(IsActiveResponse(result=active).SerializeToString())
                told = active
            await asyncio.sleep(LOOK_S)

    async def get_metric_spec(self, raw: bytes, _call: Call) -> GetMetricSpecResponse:
        asked = parse(decode(ScaledObjectRef, raw, MAX_BYTES))
        names = [name for name in METRICS if name != "busy" or asked.keep_busy]
        specs = [MetricSpec(metricName=name, targetSize=1, targetSizeFloat=1.0) for name in names]
        return GetMetricSpecResponse(metricSpecs=specs)

    async def get_metrics(self, raw: bytes, _call: Call) -> GetMetricsResponse:
        request = decode(GetMetricsRequest, raw, MAX_BYTES)
        asked = parse(request.scaledObjectRef)
        if request.metricName not in METRICS:
            raise InvalidRequest([Violation("metricName", f"must be one of {', '.join(METRICS)}")])
        needed: float = getattr(await self._look(asked), request.metricName)
        value = MetricValue(metricName=request.metricName, metricValue=math.ceil(needed), metricValueFloat=needed)
        return GetMetricsResponse(metricValues=[value])

    async def _whether_active(self, asked: Asked, told: bool | None) -> bool | None:
        """What was told before, where it cannot be known now."""
        try:
            return (await self._look(asked)).active
        except MillraceError:
            return told

    async def _look(self, asked: Asked) -> Need:
        """Raises Unavailable where Redis is away, NotFound where none of the models is known."""
        self._readiness.require()
        known = [entry.model for entry in await self._models.models() if asked.names(entry.model)]
        if not known:
            raise NotFound(f"no model {asked} has been served in the last week", reason="MODEL_UNKNOWN")
        loads = await asyncio.gather(*map(self._queue.load, known))
        return Need(asked=asked, loads=loads, workers=await self._models.workers())
