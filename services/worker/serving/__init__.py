"""Which models a worker serves, while it runs: what is wanted, against what is there."""

from services.worker.serving.serving import Serving

__all__ = ["Serving"]
