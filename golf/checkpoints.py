"""A folder of checkpoints: the newest counts, those before are kept in case it is damaged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from golf.weights import TensorFile, WeightsError, load_tensors, save_tensors

NUM_KEPT = 2


class Checkpoints:
    """Checkpoints of one run, named by how far it had come."""

    def __init__(self, folder: Path, unit: str, num_kept: int = NUM_KEPT) -> None:
        """`num_kept` newest ones are kept, 0 keeps all."""
        self.folder, self.unit, self.num_kept = folder, unit, num_kept

    def save(self, done: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Write the checkpoint after `done` steps or chunks, then drop those too old."""
        path = self.folder / f"{self.unit}-{done:08d}.safetensors"
        save_tensors(path, tensors, metadata)
        for old in self.all()[: -self.num_kept] if self.num_kept else ():
            old.unlink(missing_ok=True)

    def load_newest(self) -> TensorFile | None:
        """The newest checkpoint, or None where there is none.

        Raises:
            WeightsError: it is damaged; the text says how to go back to the one before.
        """
        paths = self.all()
        if not paths:
            return None
        try:
            return load_tensors(paths[-1])
        except WeightsError as error:
            raise WeightsError(
                f"{error}; delete it to resume from the checkpoint before it, or from the start"
            ) from error

    def load_before(self, done: int) -> TensorFile | None:
        """The newest checkpoint after at most `done` steps or chunks; None where there is none.

        Raises:
            WeightsError: it is damaged.
        """
        paths = [path for path in self.all() if int(path.stem.rpartition("-")[2]) <= done]
        return load_tensors(paths[-1]) if paths else None

    def all(self) -> list[Path]:
        """All that are kept, the oldest first."""
        return sorted(self.folder.glob(f"{self.unit}-*.safetensors"))
