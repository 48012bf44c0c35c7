"""Which decoder a graph needs, by its dialect."""

from services.worker.generation.config import ModelConfig
from services.worker.generation.decoder import Decoder
from services.worker.generation.paged import PagedDecoder
from services.worker.generation.slot.decoder import SlotDecoder


def open_decoder(config: ModelConfig, *, device: str, threads: int) -> Decoder:
    """Raises ValueError where the graph is of no dialect that there is a decoder for."""
    if config.decoder.is_paged:
        return PagedDecoder(config, device=device, threads=threads, captures=config.cuda_graphs)
    return SlotDecoder(config, device=device, threads=threads)
