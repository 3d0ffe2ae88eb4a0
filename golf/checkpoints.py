"""A folder of checkpoints: the newest counts, those before are kept in case it is damaged."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from golf.weights import TensorFile, WeightsError, load_tensors, save_tensors

NUM_KEPT = 2


class Checkpoints:
    """Checkpoints of one run, named by how far it had come."""

    def __init__(self, folder: Path, unit: str, num_kept: int = NUM_KEPT) -> None:
        """`num_kept` newest ones are kept, 0 keeps all."""
        self.folder, self.unit, self.num_kept = folder, unit, num_kept

    def save(
        self,
        done: int,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, str],
        needed: int | None = None,
    ) -> None:
        """Write the checkpoint after `done` steps or chunks, then drop those too old.

        The newest after at most `needed` steps or chunks, and all since, are kept in any case.
        """
        path = self.folder / f"{self.unit}-{done:08d}.safetensors"
        save_tensors(path, tensors, metadata)
        olds = self.all()[: -self.num_kept] if self.num_kept else []
        if needed is not None:
            before = [path for path in self.all() if _done(path) <= needed]
            olds = [old for old in olds if old in before[:-1]]
        for old in olds:
            old.unlink(missing_ok=True)

    def load_newest(self) -> TensorFile | None:
        """The newest checkpoint, or None where there is none.

        Raises:
            WeightsError: it is damaged; the text says how to go back to the one before.
        """
        return _load_last(self.all())

    def load_before(self, done: int) -> TensorFile | None:
        """The newest checkpoint after at most `done` steps or chunks; None where there is none.

        Raises:
            WeightsError: it is damaged; the text says how to go back to the one before.
        """
        return _load_last([path for path in self.all() if _done(path) <= done])

    def all(self) -> list[Path]:
        """All that are kept, the oldest first."""
        return sorted(self.folder.glob(f"{self.unit}-*.safetensors"))


class CheckpointWriter:
    """Writes checkpoints beside the work: who saves waits for a copy in memory, not for the disk.

    One is written at a time. A failure is raised by the next `save` or by `settle`.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._copies: dict[str, Tensor] = {}
        """Kept from one checkpoint to the next: fresh memory takes longer than the copy."""

    def save(
        self,
        done: int,
        tensors: Mapping[str, Tensor],
        metadata: Mapping[str, str],
        needed: int | None = None,
    ) -> None:
        """As `Checkpoints.save`; the tensors may change as soon as this returns."""
        self.settle()
        self._copy(tensors)
        given = (done, self._copies, metadata, needed)
        self._writing = self._pool.submit(self.checkpoints.save, *given)

    def _copy(self, tensors: Mapping[str, Tensor]) -> None:
        if self._copies.keys() != tensors.keys():
            self._copies = {
                name: torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
                for name, tensor in tensors.items()
            }
        for name, tensor in tensors.items():
            self._copies[name].copy_(tensor.detach())

    def settle(self) -> None:
        """Wait until the checkpoint that is being written is on disk."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def _done(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _load_last(paths: list[Path]) -> TensorFile | None:
    if not paths:
        return None
    try:
        return load_tensors(paths[-1])
    except WeightsError as error:
        raise WeightsError(
            f"{error}; delete it to resume from the checkpoint before it, or from the start"
        ) from error
