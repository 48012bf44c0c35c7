"""What models have done, as Triton's clients read it: the sums over all workers, and over the frontends' caches."""

from millrace.oip.inference_pb2 import (
    InferBatchStatistics,
    InferStatistics,
    ModelStatisticsRequest,
    ModelStatisticsResponse,
    StatisticDuration,
)
from millrace.oip.inference_pb2 import ModelStatistics as ModelStatisticsMessage
from millrace.queue import ModelTotals, ModelVersion, Spent, Statistics
from services.frontend.border import Border, Method
from services.frontend.call import Call
from services.frontend.models import Models
from services.frontend.oip.inference import SERVICE
from services.frontend.parse import decode
from services.frontend.readiness import Readiness
from services.frontend.rules import Bounds


class ModelStatistics:
    """The part of inference.GRPCInferenceService that counts."""

    def __init__(self, models: Models, statistics: Statistics, readiness: Readiness, bounds: Bounds) -> None:
        self._models, self._statistics, self._readiness, self._bounds = models, statistics, readiness, bounds

    def methods(self, border: Border) -> dict[str, Method]:
        return {"ModelStatistics": border.unary(f"{SERVICE}/ModelStatistics", self.model_statistics, admin=True)}

    async def model_statistics(self, raw: bytes, _call: Call) -> ModelStatisticsResponse:
        """As of the call's arrival: load generators begin with it. Raises NotFound where a model or version is named
        that there is not."""
        request = decode(ModelStatisticsRequest, raw, self._bounds.max_request_bytes)
        self._readiness.require()
        await self._statistics.refresh()
        if request.name:
            await self._models.resolve(request.name, request.version)
        known = [entry.model for entry in await self._models.models()]
        wanted = [
            model for model in known if request.name in ("", model.name) and request.version in ("", model.version)
        ]
        totals = await self._statistics.read(wanted)
        return ModelStatisticsResponse(model_stats=[_tell(model, of) for model, of in totals.items()])


def _tell(model: ModelVersion, totals: ModelTotals) -> ModelStatisticsMessage:
    return ModelStatisticsMessage(
        name=model.name,
        version=model.version,
        last_inference=totals.last_run_ms,
        inference_count=totals.rows,
        execution_count=totals.runs,
        inference_stats=InferStatistics(
            success=_spent(totals.success),
            fail=_spent(totals.failure + totals.cancelled),
            queue=_spent(totals.queue),
            compute_input=_spent(totals.compute_input),
            compute_infer=_spent(totals.compute_infer),
            compute_output=_spent(totals.compute_output),
            cache_hit=_spent(totals.cache_hit),
            cache_miss=_spent(totals.cache_miss),
        ),
        batch_stats=[
            InferBatchStatistics(
                batch_size=size,
                compute_input=StatisticDuration(count=runs.count, ns=runs.input_ns),
                compute_infer=StatisticDuration(count=runs.count, ns=runs.infer_ns),
                compute_output=StatisticDuration(count=runs.count, ns=runs.output_ns),
            )
            for size, runs in sorted(totals.batches.items())
        ],
    )


def _spent(spent: Spent) -> StatisticDuration:
    return StatisticDuration(count=spent.count, ns=spent.ns)
