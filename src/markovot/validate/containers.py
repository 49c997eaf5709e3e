"""Read tensors and arrays from the user: refuse those that carry more than numbers, and copy the numbers.

A container may carry more than numbers (a mask, a unit, an index, a scale), which would be lost silently. And the user
keeps it: later writes into it must neither change a chain nor corrupt a solve.
"""

import sys
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from markovot.autograd.transforms import is_wrapped
from markovot.validate.arguments import kind


def as_tensor(name: str, value: Any) -> Tensor:
    """A dense tensor with a copy of the given numbers; a tensor that requires a gradient is not copied.

    Such a tensor is taken as it is, so that gradients reach it and an optimiser's steps are seen.

    Raises:
        TypeError: neither a tensor nor an array, or one that carries more than numbers.
        ValueError: an array with masked entries.
    """
    if isinstance(value, Tensor):
        return own(usable(name, value))
    if isinstance(value, np.ndarray):
        return _from_array(name, value)
    raise TypeError(f"{name}: expected a torch tensor or a NumPy array, got {kind(value)}.{repair(name, value)}")


def array(name: str, value: Any) -> NDArray[Any]:
    """A NumPy array of a tensor, an array, or lists that make one; detached."""
    if isinstance(value, Tensor):
        tensor = usable(name, value).detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if isinstance(value, str | bytes | Mapping | Set) or not (hasattr(value, "__len__") or hasattr(value, "__array__")):
        raise TypeError(f"{name}: expected an array, got {kind(value)}.")
    if isinstance(value, np.ndarray):
        plain_array(name, value)
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: of this {kind(value)} NumPy makes no array ({error}).") from error


def reals(name: str, value: Any) -> NDArray[np.float64]:
    """A float64 array of a tensor, an array, or lists of real numbers."""
    found = array(name, value)
    if found.dtype.kind not in "iuf":
        raise TypeError(f"{name}: expected real numbers, got an array of {found.dtype}.")
    return found.astype(np.float64)


def usable(name: str, tensor: Tensor) -> Tensor:
    """A dense tensor with values. Outside inference mode, tensors made inside are copied: autograd cannot keep them."""
    plain_tensor(name, tensor)
    has_values(name, tensor)
    if tensor.layout != torch.strided:
        raise TypeError(
            f"{name}: a dense tensor is wanted here, not one of layout {tensor.layout}. Convert it with "
            f"{name}.to_dense()."
        )
    if not is_wrapped(tensor) and tensor.is_inference() and not torch.is_inference_mode_enabled():
        return tensor.clone()
    return tensor


def has_values(name: str, tensor: Tensor) -> None:
    """Refuse tensors on the device meta, which have a shape but no values."""
    if tensor.device.type == "meta":
        raise ValueError(f"{name}: a tensor on the device meta has no values. Make it on a real device, such as 'cpu'.")


def own(tensor: Tensor) -> Tensor:
    """A copy of a tensor, or the tensor itself if it requires a gradient; axes made by `expand` stay expanded."""
    if tensor.requires_grad or is_wrapped(tensor):
        return tensor
    if tensor.layout != torch.strided:
        return tensor.clone()
    narrow = tuple(
        slice(0, 1) if step == 0 and size > 1 else slice(None)
        for step, size in zip(tensor.stride(), tensor.shape, strict=True)
    )
    return tensor[narrow].clone().expand(tensor.shape) if narrow else tensor.clone()


def plain_tensor(name: str, tensor: Tensor) -> None:
    """Refuse tensors that carry more than numbers."""
    if type(tensor).__name__ == "MaskedTensor":
        raise TypeError(
            f"{name}: a masked tensor has entries without a value. Fill them first, for instance with "
            f"{name}.to_tensor(0.0), or leave their states out."
        )
    if tensor.is_nested:
        raise TypeError(
            f"{name}: a nested tensor holds parts of several shapes. Give its parts one by one, from {name}.unbind(); "
            "chains of different sizes become one batch with MarkovChain.stack."
        )
    if tensor.is_quantized:
        raise TypeError(f"{name}: a quantised tensor holds codes. Convert it with {name}.dequantize().")


def plain_array(name: str, array: Any) -> None:
    """Refuse arrays that carry more than numbers."""
    if isinstance(array, np.ma.MaskedArray):
        masked = int(np.ma.count_masked(array))
        if masked:
            raise ValueError(
                f"{name}: {masked} of its {array.size} entries are masked. Fill them first, for instance with "
                f"{name}.filled(0.0), or leave their states out."
            )
    elif not isinstance(array, np.matrix | np.memmap | np.recarray) and type(array) is not np.ndarray:
        raise TypeError(
            f"{name}: {type(array).__name__} carries more than numbers, for instance a unit, which would be lost. Give "
            f"its numbers alone, np.asarray({name})."
        )


def _from_array(name: str, array: Any) -> Tensor:
    """A tensor of an array's numbers, always a copy, without torch's warning about memory that is read-only."""
    plain_array(name, array)
    dtype = array.dtype
    if dtype.kind not in "fiubc":
        raise TypeError(
            f"{name}: expected an array of numbers, got dtype {dtype}. If it holds numbers, convert it with "
            f"{name}.astype(float)."
        )
    if (dtype.kind == "f" and dtype.itemsize > 8) or (dtype.kind == "c" and dtype.itemsize > 16):
        raise TypeError(f"{name}: dtype {dtype} is not supported, only float32 and float64. Use {name}.astype(float).")
    # torch has few operations for unsigned integers of more than a byte.
    wide = dtype.kind == "u" and dtype.itemsize > 1
    if wide and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise TypeError(f"{name}: {array.max()} does not fit into int64. Convert it with {name}.astype(float).")
    native = np.dtype(np.int64) if wide else dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, dtype=native, order="C"))


def is_scipy(matrix: Any) -> bool:
    """Whether this is a SciPy sparse array or matrix, found out without importing SciPy."""
    scipy_sparse = sys.modules.get("scipy.sparse")  # if it was never imported, there are no such objects
    return scipy_sparse is not None and bool(scipy_sparse.issparse(matrix))


def repair(name: str, value: Any) -> str:
    """A sentence for messages that says how to make an array of an object that is none; empty if unknown."""
    if isinstance(value, type):
        return f" Give an instance: {value.__name__}(...)."
    if is_scipy(value):
        return f" Convert it with {name}.toarray()."
    if type(value).__module__.partition(".")[0] == "pandas":
        return (
            f" Give its numbers alone, {name}.to_numpy(dtype=float), once its rows and columns are in the order of the "
            "states."
        )
    if hasattr(value, "to_numpy"):
        return f" Give its numbers alone, {name}.to_numpy()."
    listed = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    if listed or hasattr(value, "__array__"):
        return " Convert it first, for instance with torch.as_tensor(value, dtype=torch.float64)."
    return ""
