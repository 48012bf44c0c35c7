"""One training in several processes: each takes its share of a step's rows, and gradients are averaged over all.

Processes of one machine find each other by a file. A GPU for each: NCCL; otherwise gloo, over loopback.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Which of how many this process is, and what it computes on."""

    rank: int = 0
    processes: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def share(self, rows: int) -> range:
        """Of a step's rows; all have equally many. Raises ValueError where that cannot be."""
        if rows % self.processes:
            raise ValueError(f"{rows} rows cannot be shared equally by {self.processes} processes")
        return range(self.rank, rows, self.processes)

    def parallel(self, network: nn.Module) -> nn.Module:
        """The network, such that its gradients are the means of all processes'."""
        return network if self.processes == 1 else DistributedDataParallel(network)

    def mean(self, value: float) -> float:
        """Of all processes' values; all of them must ask."""
        if self.processes == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return float(total) / self.processes


def run(function: Callable[..., object], processes: int, threads: int, *given: Any) -> None:
    """Call `function(group, *given)` in each process, and return when all have; one's error ends all. The function and
    what it is given must be picklable where there are several."""
    if processes == 1:
        torch.set_num_threads(threads)
        function(Group(device="cuda" if torch.cuda.is_available() else "cpu"), *given)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        torch.multiprocessing.spawn(_start, (function, processes, threads, meeting, given), processes)


def _start(
    rank: int, function: Callable[..., object], processes: int, threads: int, meeting: str, given: tuple[Any, ...]
) -> None:
    cuda = torch.cuda.device_count() >= processes
    if cuda:
        torch.cuda.set_device(rank)
    else:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(max(1, threads // processes))
    distributed.init_process_group(
        "nccl" if cuda else "gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes
    )
    try:
        function(Group(rank=rank, processes=processes, device=f"cuda:{rank}" if cuda else "cpu"), *given)
    finally:
        distributed.destroy_process_group()
