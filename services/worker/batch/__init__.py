"""The engine for stateless graphs: tensors in, tensors out, rows of many requests in one run."""

from services.worker.batch.engine import BatchEngine

__all__ = ["BatchEngine"]
