"""Read a file that `markovot distances` wrote, and check everything in it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markovot.cli.program import Failure

if TYPE_CHECKING:
    import numpy as np

# A finished file answers a command only if these settings agree; the others are information for people.
DECISIVE = ("chains", "cost", "delta", "epsilon", "debiased", "rtol")

_ARRAYS = ("value", "error_bound", "status", "targets", "names")
_SETTINGS: dict[str, Any] = {
    **dict.fromkeys(("data", "chains", "features", "cost"), str),
    **dict.fromkeys(("reading", "class_names", "invalid"), dict),
    **dict.fromkeys(("debiased", "named"), bool),
    **dict.fromkeys(("delta", "epsilon", "rtol"), (int, float)),
}


def read_output(path: Path) -> dict[str, Any]:
    """The arrays of a file of distances, and its settings as a dictionary.

    Raises:
        Failure: it is no such file, or is damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        try:
            found = _unpacked(stream)
            _check(found)
        except Exception as error:  # zip files, arrays and JSON fail in many ways
            raise Failure(f"{path} is not a file of `markovot distances`, or is damaged: {error}") from error
    return found


def _unpacked(stream: Any) -> dict[str, Any]:
    import zipfile

    import numpy as np

    with zipfile.ZipFile(stream) as archive:
        if (damaged := archive.testzip()) is not None:  # NumPy may stop reading before the end, where the checksum is
            raise ValueError(f"the checksum of {damaged} does not match")
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as file:
        found: dict[str, Any] = {name: file[name] for name in file.files}
    for name in (*_ARRAYS, "settings"):
        if name not in found:
            raise ValueError(f"it has no {name}")
    found["settings"] = json.loads(str(found["settings"]))
    return found


def _check(found: dict[str, Any]) -> None:
    import numpy as np

    from markovot.solution import Status

    value, bound, status = (found[name] for name in _ARRAYS[:3])
    k = len(value) if value.ndim else 0
    if k == 0:
        raise ValueError("value: there are no graphs")
    kinds = {"value": "f", "error_bound": "f", "status": "U", "targets": "iu", "names": "U"}
    for name in _ARRAYS:
        none = name == "targets" and not found[name].size  # without classes
        _check_array(name, found[name], kinds[name], (k, k) if name in _ARRAYS[:3] else (0,) if none else (k,))
    if unknown := set(status.ravel().tolist()) - {one.name for one in Status}:
        raise ValueError(f"status: {sorted(unknown)[0]!r} is none")
    solved = status == Status.CONVERGED.name
    if not np.isfinite(value[solved]).all() or not ((bound[solved] >= 0) & np.isfinite(bound[solved])).all():
        raise ValueError("value, error_bound: a pair that converged has none")
    if any(not np.array_equal(part, part.T, equal_nan=part.dtype.kind == "f") for part in (value, bound, status)):
        raise ValueError("value, error_bound, status: they are not symmetric")
    _check_settings(found["settings"], k)


def _check_array(name: str, array: "np.ndarray[Any, Any]", kinds: str, shape: tuple[int, ...]) -> None:
    if array.dtype.kind not in kinds:
        raise ValueError(f"{name}: its entries are of type {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name}: its shape is {array.shape}, where {shape} is due")


def _check_settings(settings: Any, k: int) -> None:
    if not isinstance(settings, dict):
        raise ValueError("settings: they are no dictionary")
    for name, kind in _SETTINGS.items():
        if not isinstance(settings.get(name), kind):
            raise ValueError(f"settings: {name} is {settings.get(name)!r}")
    for number in settings["invalid"]:
        if not number.isdecimal() or int(number) >= k:
            raise ValueError(f"settings: there is no graph {number!r}")
