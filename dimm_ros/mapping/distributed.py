"""Several processes that make one map: each encodes its share of the views and trains on it, gradients are averaged.

``torchrun --nproc-per-node N -m dimm_ros.cli.main map ...`` starts them; of several machines, all must see the map's
folder. Views are dealt out like cards (process r of N has views r, r + N, ...), and each process draws its N-th part of
every batch from its own: a step sees as many patches of as many images as that of one process. The first process also
    calibrates and writes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, distributed, nn

from dimm_ros.mapping.training_views import ROWS, VIEWS, TrainingViews

if TYPE_CHECKING:
    from dimm_ros.mapping.features import FeatureBuffer


@dataclass(frozen=True)
class Workers:
    """The processes that work together.

    Attributes:
        rank: this one's number.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether one of them says so; each must ask."""
        return self.mean(float(flag)) > 0

    def mean(self, value: float) -> float:
        """The mean of their values; each must give one."""
        if self.size == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64, device=_collective_device())
        distributed.all_reduce(total)
        return float(total) / self.size

    def wait(self) -> None:
        """Return when all have come here."""
        self.mean(0.0)

    def share(self, views: Tensor) -> Tensor:
        """Those of (K,) view numbers that are this process's."""
        return views[views % self.size == self.rank]

    def synchronised(self, network: nn.Module, *, unused: bool) -> nn.Module:
        """A network around this one that averages its gradients over the processes; its weights are made the first
        one's.

        ``unused`` says that some of its parameters do not count.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the option is about to be called otherwise
            # No static_graph: it looks for the outputs in vain where they are a dataclass, and averages nothing.
            return nn.parallel.DistributedDataParallel(network, broadcast_buffers=False, find_unused_parameters=unused)


ALONE = Workers()


def local_device(name: str) -> str:
    """ "auto" and "cuda" as the GPU of this process among those of its machine."""
    number = os.environ.get("LOCAL_RANK")
    return f"cuda:{number}" if number is not None and name in ("auto", "cuda") and torch.cuda.is_available() else name


@contextmanager
def joined_workers(device: torch.device) -> Iterator[Workers]:
    """The processes that torchrun started, this one among them; ``ALONE`` without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Workers(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def joined_views(
    buffers: Sequence[FeatureBuffer], folder: Path, memory_mb: int, own: int | None = None
) -> TrainingViews:
    """As ``FeatureBuffer.training_views``, of buffers among which the views were dealt out, in one process's order.

    Args:
        buffers: of all processes, complete.
        folder: for files, if the patches do not fit in memory.
        own: take the patches of this buffer alone, and of the others only what is known of each view; None takes all.
    """
    size, views = len(buffers), sum(buffer.views for buffer in buffers)
    result = {}
    for name in VIEWS:
        parts = [getattr(buffer, name) for buffer in buffers]
        whole = np.empty((views, *parts[0].shape[1:]), parts[0].dtype)
        for rank, part in enumerate(parts):
            whole[rank::size] = part
        result[name] = torch.from_numpy(whole)
    taken = [rank for rank in range(size) if own in (None, rank)]
    local = {rank: np.array(buffers[rank].view_of[: buffers[rank].rows]) for rank in taken}
    counts = np.zeros(views, dtype=np.int64)
    for rank in taken:
        counts[rank::size] = np.bincount(local[rank], minlength=buffers[rank].views)
    first, rows = np.cumsum(counts) - counts, int(counts.sum())
    in_memory = sum(rows * getattr(buffers[0], name)[:1].nbytes for name in ROWS) <= memory_mb * 1_000_000
    if not in_memory:
        folder.mkdir(parents=True, exist_ok=True)
    for name in ROWS:
        source = getattr(buffers[0], name)
        shape = (rows, *source.shape[1:])
        whole = (
            np.empty(shape, source.dtype)
            if in_memory
            else np.lib.format.open_memmap(folder / f"{name}.npy", "w+", source.dtype, shape)
        )
        for rank in taken:
            number = local[rank]
            within = np.arange(len(number)) - np.searchsorted(number, number)  # a view's patches follow one another
            view = number.astype(np.int64) * size + rank
            whole[first[view] + within] = (
                view if name == "view_of" else getattr(buffers[rank], name)[: buffers[rank].rows]
            )
        result[name] = torch.from_numpy(whole)
    return TrainingViews(**result)


def _collective_device() -> str:
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"
