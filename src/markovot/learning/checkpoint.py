"""A training in a file, from which it goes on after an interruption."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

_FORMAT = "markovot training 1"


class Checkpoint:
    """A training in a file."""

    def __init__(self, path: Any, run: Any, stopper: Any) -> None:
        self._path, self._run, self._stopper = Path(path), run, stopper
        if not self._path.parent.is_dir():
            raise ValueError(f"checkpoint: there is no folder {self._path.parent}. Make it first.")
        if self._path.exists():
            self._load()

    def save(self) -> None:
        """Write the file anew, and then put it in the place of the old one, so that no half of one is ever there."""
        run, stopper = self._run, self._stopper
        content = {
            "format": _FORMAT,
            "shapes": self._shapes(),
            "module": run.module.state_dict(),
            "optimiser": run.optimiser.state_dict(),
            "best": run.best,
            "best_value": torch.as_tensor(run.best_value, dtype=torch.float64, device="cpu"),
            "history": [torch.from_numpy(np.array(part)) for part in self._parts()],
            "patience": [torch.from_numpy(np.array(part)) for part in (stopper.reference, stopper.waited)],
            "random": torch.get_rng_state(),
        }
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        try:
            torch.save(content, draft)
            draft.replace(self._path)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise

    def _parts(self) -> Iterable[list[Any]]:
        return self._run.values, self._run.error_bounds, self._run.num_iters, self._run.seconds

    def _shapes(self) -> dict[str, Any]:
        named = self._run.module.named_parameters()
        shapes = {name: (list(p.shape), str(p.dtype)) for name, p in named if p.requires_grad}
        return {"parameters": shapes, "optimiser": type(self._run.optimiser).__name__}

    def _load(self) -> None:
        run, stopper = self._run, self._stopper
        try:
            content = torch.load(self._path, weights_only=True)
            known = content["format"] == _FORMAT
        except Exception as error:
            raise ValueError(
                f"checkpoint: {self._path} is not a checkpoint ({error}). Give another path, or delete the file."
            ) from error
        if not known or content["shapes"] != self._shapes():
            raise ValueError(
                f"checkpoint: {self._path} was made by a training of other parameters or with another optimiser. Give "
                "another path, or delete the file to begin anew."
            )
        run.module.load_state_dict(content["module"])
        run.optimiser.load_state_dict(content["optimiser"])
        run.best = content["best"]
        best = content["best_value"].numpy()
        run.best_value = best if best.ndim else float(best)
        rows = [part.numpy() for part in content["history"]]
        for mine, part in zip(self._parts(), rows, strict=True):
            mine.extend(part if part.ndim > 1 else part.tolist())
        run.step = len(run.values)
        stopper.reference, stopper.waited = (part.numpy() for part in content["patience"])
        torch.set_rng_state(content["random"])
