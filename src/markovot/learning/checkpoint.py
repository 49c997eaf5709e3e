"""A file with the state of a training, from which the training continues after an interruption."""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from markovot._files import placed, seal, unseal, written_whole

_WHAT = "training 2"
_REPAIR = "Give another path, or delete the file"


class Checkpoint:
    """The file that holds the state of a training."""

    def __init__(self, path: Any, run: Any, stopper: Any) -> None:
        self._path, self._run, self._stopper = placed("checkpoint", path), run, stopper
        if self._path.exists():
            self._load()

    def save(self) -> None:
        """Write a new file, and then replace the old one by it, so that there is never half a file."""
        run, stopper = self._run, self._stopper
        content = {
            "shapes": self._shapes(),
            "module": run.module.state_dict(),
            "optimiser": run.optimiser.state_dict(),
            "best": run.best,
            "best_value": torch.as_tensor(run.best_value, dtype=torch.float64, device="cpu"),
            "history": [torch.from_numpy(np.array(part)) for part in self._parts()],
            "patience": [torch.from_numpy(np.array(part)) for part in (stopper.reference, stopper.waited)],
            "random": torch.get_rng_state(),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        try:
            with written_whole(self._path) as temporary:
                temporary.write_bytes(seal(buffer.getvalue(), _WHAT))
        except OSError as error:
            raise OSError(
                error.errno, f"checkpoint: {error.strerror}. Mend that, and the same call goes on", str(self._path)
            ) from error

    def _parts(self) -> Iterable[list[Any]]:
        return self._run.values, self._run.error_bounds, self._run.num_iters, self._run.seconds

    def _shapes(self) -> dict[str, Any]:
        trained = [name for name, parameter in self._run.module.named_parameters() if parameter.requires_grad]
        state = {
            name: (list(part.shape), str(part.dtype)) if isinstance(part, Tensor) else type(part).__name__
            for name, part in self._run.module.state_dict().items()
        }
        return {"parameters": trained, "state": state, "optimiser": type(self._run.optimiser).__name__}

    def _load(self) -> None:
        try:
            # The digest is checked first, since PyTorch's own reader does not notice damaged numbers.
            data = unseal(self._path.read_bytes(), _WHAT)
            content = torch.load(io.BytesIO(data), weights_only=True)
            same = content["shapes"] == self._shapes()
        except OSError:
            raise
        except Exception as error:
            raise ValueError(
                f"checkpoint: {self._path} is not a checkpoint of a training, or is damaged ({error}). {_REPAIR}."
            ) from error
        if not same:
            raise ValueError(
                f"checkpoint: {self._path} was made by a training of other parameters or with another optimiser. "
                f"{_REPAIR} to begin anew."
            )
        try:
            self._restore(content)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"checkpoint: {self._path} does not fit this training ({error}). {_REPAIR} to begin anew."
            ) from error

    def _restore(self, content: dict[str, Any]) -> None:
        run, stopper = self._run, self._stopper
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
