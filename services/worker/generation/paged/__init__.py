"""Dialect 2: graphs whose attention is PagedAttention, with their KV memory in blocks."""

from services.worker.generation.paged.decoder import PagedDecoder

__all__ = ["PagedDecoder"]
