"""The engine for decoder models: continuous batching over GroupQueryAttention graphs, sampling on the device."""

from services.worker.generation.engine import GenerationEngine

__all__ = ["GenerationEngine"]
