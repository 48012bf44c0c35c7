"""Dialect 1: graphs whose attention is GroupQueryAttention, with a slot of the KV cache for each row."""
