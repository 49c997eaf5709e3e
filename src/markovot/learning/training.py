"""The training loop, for any module, objective and optimiser of PyTorch. Failed steps raise errors."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module, Parameter

from markovot import validate
from markovot._progress import bar
from markovot.learning.checkpoint import Checkpoint
from markovot.learning.history import History
from markovot.solution import Certified, SolveError

Objective = Callable[[Any], Any]
OptimiserFactory = Callable[[list[Parameter]], torch.optim.Optimizer]

# Every so many steps the warm starts are dropped and the checkpoint is written. A resumed run has no warm start either,
# so it goes on exactly as an uninterrupted one does.
EVERY = 50


class TrainingError(SolveError):
    """A step of a training failed.

    Attributes:
        step: which one, counted from 0.
        history: the `History` of the steps before it.
        best: the parameters with the smallest value so far, as in a `state_dict`; the module has these now.
        solution: what the solver had computed, if it was the solver that failed; else None.
    """

    def __init__(self, message: str, *, step: int, history: History, best: dict[str, Tensor], solution: Any) -> None:
        super().__init__(message, solution)
        self.step = step
        self.history = history
        self.best = best


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train: the settings of `minimise`, for the functions that call it.

    Attributes:
        steps: the most steps.
        lr: the learning rate of Adam.
        optimiser: another optimiser, see `minimise`.
        patience: steps without a gain after which to stop. Default: never.
        tolerance: the smallest gain that counts, relative to the value.
        progress: show a progress bar.
        checkpoint: a file to go on from after an interruption.

    Example:
        >>> Training(steps=100, patience=20)
        Training(steps=100, lr=0.01, optimiser=None, patience=20, tolerance=0.0001, progress=True, checkpoint=None)
    """

    steps: int = 300
    lr: float = 1e-2
    optimiser: OptimiserFactory | None = None
    patience: int | None = None
    tolerance: float = 1e-4
    progress: bool = True
    checkpoint: Any = None

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {"steps": validate.count("steps", self.steps, low=1)}
        if self.patience is not None:
            checked["patience"] = validate.count("patience", self.patience, low=1)
        checked["tolerance"] = validate.number("tolerance", self.tolerance, 0.0, math.inf)
        checked["lr"] = validate.number("lr", self.lr, 0.0, math.inf)
        if not checked["lr"] > 0:
            raise ValueError(f"lr: {self.lr!r} is not above 0, so that nothing would move.")
        checked["progress"] = validate.flag("progress", self.progress)
        if self.optimiser is not None:
            validate.function("optimiser", self.optimiser)
        if self.checkpoint is not None:
            validate.path("checkpoint", self.checkpoint)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def run(self, module: Module, objective: Objective) -> History:
        """Call `minimise` with these settings."""
        return minimise(module, objective, **vars(self))


def minimise(
    module: Module,
    objective: Objective,
    *,
    steps: int,
    lr: float = 1e-2,
    optimiser: OptimiserFactory | None = None,
    patience: int | None = None,
    tolerance: float = 1e-4,
    progress: bool = True,
    checkpoint: Any = None,
) -> History:
    r"""Minimise an objective over the parameters of a module, by gradient steps.

    $$\theta \leftarrow \theta - \text{step of the optimiser along}\ \nabla_\theta f(\theta);$$

    the module is left with the parameters of the smallest f that was seen.

    Args:
        module: its parameters that require a gradient are trained, in place.
        objective: takes the module, and returns the value to make small, differentiable: a tensor with one number; or a
            vector of R numbers, for R problems that are trained side by side. Then the first dimension of every trained
            parameter is R, problem r depends only on part r of each, and every problem keeps its own best. It may also
            return a pair of the value and its `Solution`, whose certified error and iterations then enter the history.
            If it has a method `reset()` that drops warm starts, this is called every 50 steps.
        steps: the most steps of the optimiser, at least 1.
        lr: the learning rate of Adam, > 0, where no other optimiser is given.
        optimiser: takes the list of trained parameters and returns an optimiser of PyTorch, such as
            `lambda parameters: torch.optim.LBFGS(parameters)`. It may evaluate the objective several times
            in a step. L-BFGS couples problems that are trained side by side.
        patience: stop after so many steps in a row without a gain; at least 1. Default: never.
        tolerance: a value counts as a gain if it is below the last gain by more than `tolerance` times its size; >= 0.
        progress: show a progress bar.
        checkpoint: a file, written every 50 steps and at the end, by which the same call goes on after an interruption,
            with the bits of a call that was not interrupted. It holds the parameters and buffers, the optimiser, the
            history, and the state of PyTorch's random generator, which is set when the run is taken up again. `steps`
            may be raised later. Default: none.

    Returns:
        The `History`.

    Raises:
        TypeError: a module, objective or optimiser that is not one; an objective that returns something else.
        ValueError: settings out of range, nothing to train, a checkpoint of another training.
        TrainingError: a solve failed, or a value or a gradient is not finite. It names the step and the item. The
            module then has the best parameters so far, and the error the history.

    Note:
        As deterministic as the objective. Beside the objective and the optimiser a step takes some 0.1 ms. Memory: one
        more copy of the parameters.

    Example:
        >>> import torch
        >>> from markovot.learning import minimise
        >>> line = torch.nn.Linear(1, 1, bias=False)
        >>> history = minimise(line, lambda m: (m.weight - 3).square().sum(), steps=500, lr=0.1, progress=False)
        >>> print(f"{line.weight.item():.3f}")
        3.000
    """
    training = Training(
        steps=steps, lr=lr, optimiser=optimiser, patience=patience, tolerance=tolerance, progress=progress,
        checkpoint=checkpoint,
    )  # fmt: skip
    parameters = _trained(module, objective)
    chosen = torch.optim.Adam(parameters, lr=training.lr) if optimiser is None else optimiser(parameters)
    if not isinstance(chosen, torch.optim.Optimizer):
        raise TypeError(f"optimiser: it returned {type(chosen).__name__}, not a torch.optim.Optimizer.")
    run = _Run(module, objective, parameters, chosen)
    stopper = _Patience(training.patience, training.tolerance)
    file = None if checkpoint is None else Checkpoint(checkpoint, run, stopper)
    try:
        _loop(run, stopper, file, training.steps, training.progress)
    finally:
        run.restore_best()
    return run.history()


def _loop(run: "_Run", stopper: "_Patience", file: "Checkpoint | None", steps: int, progress: bool) -> None:
    with bar(total=steps, initial=min(run.step, steps), unit="step", show=progress) as shown:
        while run.step < steps and not stopper.stops:
            if run.step % EVERY == 0:
                if file is not None and run.step:
                    file.save()
                run.forget()
            run.take_step()
            stopper.see(run.values[-1])
            if progress:
                shown.set_postfix_str(f"{min(np.ravel(run.values[-1])):.4g}", refresh=False)
            shown.update()
    if file is not None:
        file.save()


def _trained(module: Any, objective: Any) -> list[Parameter]:
    if not isinstance(module, Module):
        raise TypeError(f"module: expected a torch.nn.Module, got {type(module).__name__}.")
    if not callable(objective):
        raise TypeError(f"objective: expected a function of the module, got {type(objective).__name__}.")
    found = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not found:
        raise ValueError("module: none of its parameters requires a gradient, so there is nothing to train.")
    return found


class _Run:
    """The state of a training: what is trained, what has been seen, what was best."""

    def __init__(
        self, module: Module, objective: Objective, parameters: list[Parameter], optimiser: torch.optim.Optimizer
    ) -> None:
        self.module, self.objective, self.parameters, self.optimiser = module, objective, parameters, optimiser
        self.step = 0
        self.values: list[Any] = []  # floats, or arrays (problems,)
        self.error_bounds: list[Any] = []
        self.num_iters: list[Any] = []
        self.seconds: list[float] = []
        self.best_value: Any = math.inf
        self.best = [parameter.detach().clone() for parameter in parameters]

    def forget(self) -> None:
        """Drop warm starts."""
        reset = getattr(self.objective, "reset", None)
        if callable(reset):
            reset()

    def take_step(self) -> None:
        """One step of the optimiser, entered in the history."""
        begin = time.perf_counter()
        first: list[tuple[Any, Any, Any]] = []  # L-BFGS evaluates several times; the first counts

        def closure() -> Tensor:
            self.optimiser.zero_grad()
            total, seen = self._evaluate()
            first.append(seen)
            return total

        self.optimiser.step(closure)  # type: ignore[arg-type]  # its loss is a tensor, as in PyTorch's own examples
        value, bound, iterations = first[0]
        self.values.append(value)
        self.error_bounds.append(bound)
        self.num_iters.append(iterations)
        self.seconds.append(time.perf_counter() - begin)
        self.step += 1

    def _evaluate(self) -> tuple[Tensor, tuple[Any, Any, Any]]:
        """Compute value and gradients at the present parameters, and keep these if they are the best so far."""
        try:
            value, solution = _split(self.objective(self.module))
            self._check_problems(value)
            total = value.sum()
            total.backward()
        except (RuntimeError, ValueError) as error:
            wrong = self._not_finite("the parameter", lambda parameter: parameter)
            if wrong is None and not isinstance(error, SolveError):
                raise
            raise self._error(wrong or str(error), getattr(error, "solution", None)) from error
        seen: Any = value.detach().double().numpy(force=True)
        self._check_finite(seen, solution)
        seen = seen.copy() if seen.ndim else float(seen)
        self._keep_best(seen)
        return total, (seen, *_certificate(solution, value.shape))

    def _check_problems(self, value: Tensor) -> None:
        if not value.requires_grad:
            raise ValueError("objective: its value does not depend on the module, or was detached from it.")
        if value.dim() and any(not p.dim() or len(p) != len(value) for p in self.parameters):
            raise ValueError(
                f"objective: it returned {len(value)} values, of as many problems trained side by side, but not every "
                f"trained parameter has {len(value)} for its first dimension. For one problem, return a sum."
            )

    def _check_finite(self, seen: Any, solution: Certified | None) -> None:
        if not np.isfinite(seen).all():
            which = f" of item {int(np.flatnonzero(~np.isfinite(seen))[0])}" if seen.ndim else ""
            wrong = None if solution is None else (~solution.value.isfinite()).nonzero()
            if wrong is not None and len(wrong) and not which:
                which = f" (distance {tuple(wrong[0].tolist())})" if wrong.shape[1] else ""
            raise self._error(f"the value{which} is {seen[~np.isfinite(seen)][0] if seen.ndim else float(seen)}.")
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if math.isfinite(float(torch.nn.utils.get_total_norm(gradients))):
            return
        culprit = self._not_finite("the gradient in", lambda parameter: parameter.grad)
        raise self._error(culprit or "the norm of the gradient is too large for a float.")

    def _not_finite(self, what: str, part: Callable[[Parameter], Tensor | None]) -> str | None:
        """Name the first entry of the parameters (or their gradients) that is not finite; None if all are finite."""
        for name, parameter in self.module.named_parameters():
            tensor = part(parameter)
            bad = None if tensor is None else (~tensor.isfinite()).nonzero()
            if tensor is not None and bad is not None and len(bad):
                place = tuple(bad[0].tolist())
                where = f" at item {validate.place(place)}" if place else ""
                return f"{what} {name} is {float(tensor.detach()[place])}{where}."
        return None

    def _error(self, what: str, solution: Any = None) -> TrainingError:
        self.restore_best()
        names = {id(parameter): name for name, parameter in self.module.named_parameters()}
        best = {names[id(p)]: kept.clone() for p, kept in zip(self.parameters, self.best, strict=True)}
        message = f"step {self.step} of the training failed: {what} The module has the best parameters so far."
        return TrainingError(message, step=self.step, history=self.history(), best=best, solution=solution)

    def _keep_best(self, value: Any) -> None:
        if isinstance(value, float):
            if value < self.best_value:
                self.best_value = value
                for kept, parameter in zip(self.best, self.parameters, strict=True):
                    kept.copy_(parameter.detach())
            return
        better = value < self.best_value
        if better.any():
            self.best_value = np.minimum(value, self.best_value)
            which = torch.from_numpy(better.nonzero()[0])
            for kept, parameter in zip(self.best, self.parameters, strict=True):
                kept[which] = parameter.detach()[which]

    def restore_best(self) -> None:
        """Give the module the best parameters."""
        with torch.no_grad():
            for kept, parameter in zip(self.best, self.parameters, strict=True):
                parameter.copy_(kept)

    def history(self) -> History:
        """The steps so far."""
        return History(
            np.array(self.values, dtype=np.float64),
            np.array(self.error_bounds, dtype=np.float64),
            np.array(self.num_iters, dtype=np.int64),
            np.array(self.seconds, dtype=np.float64),
        )


def _split(returned: Any) -> tuple[Tensor, Certified | None]:
    """The value, and the solution behind it if there is one."""
    value, solution = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    if not isinstance(value, Tensor) or not (solution is None or isinstance(solution, Certified)):
        raise TypeError(
            "objective: it must return a tensor, or a pair of a tensor and the solution behind it; got "
            f"{type(value).__name__}{'' if solution is None else f' and {type(solution).__name__}'}."
        )
    if value.dim() > 1 or not value.numel():
        raise ValueError(f"objective: it returned shape {tuple(value.shape)}; one number is wanted, or a vector.")
    return value, solution


def _certificate(solution: Certified | None, shape: torch.Size) -> tuple[Any, Any]:
    """The largest certified error and the most iterations, over all, or for each of the problems."""
    if solution is None:
        return (np.full(shape, np.nan), np.zeros(shape, np.int64)) if len(shape) else (math.nan, 0)
    found = []
    for part in (solution.error_bound, solution.num_iter):
        own = part.detach().numpy(force=True) if isinstance(part, Tensor) else np.asarray(part)
        if len(shape) and own.shape[:1] == tuple(shape):
            found.append(own.reshape(len(own), -1).max(1))
        else:
            found.append(np.full(shape, own.max()) if len(shape) else own.max())
    return found[0], found[1]


class _Patience:
    """Counts the steps without a gain; several problems stop only when all are out of patience."""

    def __init__(self, patience: int | None, tolerance: float) -> None:
        self.patience, self.tolerance = patience, tolerance
        self.reference: Any = math.inf
        self.waited: Any = 0

    def see(self, value: Any) -> None:
        """Record the value of a step."""
        if self.patience is None:
            return
        with np.errstate(invalid="ignore"):
            gain = self.reference - value > self.tolerance * np.abs(self.reference)
        gain = gain | np.isinf(self.reference)
        self.reference = np.where(gain, value, self.reference)
        self.waited = np.where(gain, 0, np.asarray(self.waited) + 1)

    @property
    def stops(self) -> bool:
        """Whether it is time to stop."""
        return self.patience is not None and bool((np.asarray(self.waited) >= self.patience).all())
