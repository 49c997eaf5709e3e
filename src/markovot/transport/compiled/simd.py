"""Eight doubles side by side: a vector type for the compiled kernels.

Numba compiles scalar loops and leaves vectorisation to chance; short loops with several arrays usually lose. Here a
`vec` is one LLVM vector of eight doubles, so a kernel written in ordinary arithmetic solves eight transport problems,
one in each lane, in the instructions of one. LLVM splits the vector in two or four where registers are shorter.

The operators `+ - * /`, the comparisons (which give a `mask`) and `& | ~` on masks work between two vecs and, for the
arithmetic ones, between a vec and a float. Everything else is a function of this module.
"""

import operator
from typing import Any, ClassVar

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model
from numba.np.arrayobj import make_array

LANES = 8

_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_LONGS = ir.VectorType(ir.IntType(64), LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)
_I32 = ir.IntType(32)


class VecType(types.Type):
    """Numba's type of a vec: eight doubles."""

    def __init__(self) -> None:
        super().__init__(name="markovot.vec")


class MaskType(types.Type):
    """Numba's type of a mask: eight truth values."""

    def __init__(self) -> None:
        super().__init__(name="markovot.mask")


vec = VecType()
mask = MaskType()


@register_model(VecType)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _DOUBLES)


@register_model(MaskType)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _BITS)


def _splat(builder: Any, value: Any) -> Any:
    single = builder.insert_element(ir.Constant(_DOUBLES, ir.Undefined), value, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, LANES), None)
    return builder.shuffle_vector(single, ir.Constant(_DOUBLES, ir.Undefined), zeros)


def _constant(value: float) -> Any:
    return ir.Constant(_DOUBLES, [ir.Constant(ir.DoubleType(), value)] * LANES)


# --- operators -----------------------------------------------------------------------------------------------------


def _arithmetic(op: Any, emit: Any) -> None:
    @infer_global(op)
    class _Template(ConcreteTemplate):
        cases: ClassVar[list[Any]] = [
            signature(vec, vec, vec),
            signature(vec, vec, types.float64),
            signature(vec, types.float64, vec),
        ]

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = (
            value if isinstance(kind, VecType) else _splat(builder, value)
            for value, kind in zip(args, sig.args, strict=True)
        )
        return emit(builder, left, right)

    lower_builtin(op, VecType, VecType)(lower)
    lower_builtin(op, VecType, types.Float)(lower)
    lower_builtin(op, types.Float, VecType)(lower)


# `contract` lets a product and a sum become one fused instruction; nothing else is relaxed.
_CONTRACT = ("contract",)
_arithmetic(operator.add, lambda b, x, y: b.fadd(x, y, flags=_CONTRACT))
_arithmetic(operator.sub, lambda b, x, y: b.fsub(x, y, flags=_CONTRACT))
_arithmetic(operator.mul, lambda b, x, y: b.fmul(x, y, flags=_CONTRACT))
_arithmetic(operator.truediv, lambda b, x, y: b.fdiv(x, y, flags=_CONTRACT))


def _comparison(op: Any, symbol: str) -> None:
    @infer_global(op)
    class _Template(ConcreteTemplate):
        cases: ClassVar[list[Any]] = [signature(mask, vec, vec), signature(mask, vec, types.float64)]

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        left, right = args
        if not isinstance(sig.args[1], VecType):
            right = _splat(builder, right)
        return builder.fcmp_ordered(symbol, left, right)

    lower_builtin(op, VecType, VecType)(lower)
    lower_builtin(op, VecType, types.Float)(lower)


for _op, _symbol in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">=")):
    _comparison(_op, _symbol)


def _logical(op: Any, emit: Any) -> None:
    @infer_global(op)
    class _Template(ConcreteTemplate):
        cases: ClassVar[list[Any]] = [signature(mask, mask, mask)]

    lower_builtin(op, MaskType, MaskType)(lambda context, builder, sig, args: emit(builder, *args))


_logical(operator.and_, lambda b, x, y: b.and_(x, y))
_logical(operator.or_, lambda b, x, y: b.or_(x, y))


@infer_global(operator.invert)
class _Invert(ConcreteTemplate):
    cases: ClassVar[list[Any]] = [signature(mask, mask)]


lower_builtin(operator.invert, MaskType)(lambda context, builder, sig, args: builder.not_(args[0]))


# --- functions -----------------------------------------------------------------------------------------------------


@intrinsic
def splat(typingctx: Any, value: Any) -> Any:
    """A vec with the same float in every lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _splat(builder, context.cast(builder, args[0], sig.args[0], types.float64))

    return vec(value), codegen


def _vectors_of(dtype: Any, **arrays: Any) -> None:
    """Refuse what `_element` would misread: it takes the numbers of an array to be `dtype`s, one after another."""
    for name, kind in arrays.items():
        if not isinstance(kind, types.Array) or kind.dtype != dtype or kind.ndim != 1 or kind.layout != "C":
            raise TypingError(f"{name}: expected a contiguous vector of {dtype}, got {kind}.")


def _element(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.data_model_manager[array_type].get(builder, array, "data")
    return builder.gep(data, [index])


def _check(context: Any, builder: Any, array_type: Any, array: Any, index: Any, count: int = 1) -> None:
    """Check that an array has `count` elements from an index on, where numba checks bounds (NUMBA_BOUNDSCHECK=1)."""
    if context.enable_boundscheck:
        length = builder.extract_value(make_array(array_type)(context, builder, array).shape, 0)
        cgutils.do_boundscheck(context, builder, index, length)
        cgutils.do_boundscheck(context, builder, builder.add(index, ir.Constant(index.type, count - 1)), length)


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """Lanes `array[index : index + 8]`."""
    _vectors_of(types.float64, array=array)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _check(context, builder, sig.args[0], args[0], args[1], LANES)
        pointer = _element(context, builder, sig.args[0], *args)
        return builder.load(builder.bitcast(pointer, _DOUBLES.as_pointer()), align=8)

    return vec(array, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Write the lanes to `array[index : index + 8]`."""
    _vectors_of(types.float64, array=array)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        _check(context, builder, sig.args[0], args[0], args[1], LANES)
        pointer = _element(context, builder, sig.args[0], *args[:2])
        builder.store(args[2], builder.bitcast(pointer, _DOUBLES.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vec), codegen


@intrinsic
def gather(typingctx: Any, array: Any, base: Any, indices: Any, start: Any) -> Any:
    """Lane t is `array[base + indices[start + t]]`."""
    _vectors_of(types.float64, array=array)
    _vectors_of(types.int64, indices=indices)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, base, indices, start = args
        origin = _element(context, builder, sig.args[0], array, base)
        result = ir.Constant(_DOUBLES, ir.Undefined)
        for lane in range(LANES):
            offset = _index_of(context, builder, sig.args[2], indices, start, lane)
            _check(context, builder, sig.args[0], array, builder.add(base, offset))
            element = builder.load(builder.gep(origin, [offset]))
            result = builder.insert_element(result, element, ir.Constant(_I32, lane))
        return result

    return vec(array, types.intp, indices, types.intp), codegen


@intrinsic
def scatter_add(typingctx: Any, array: Any, base: Any, indices: Any, start: Any, value: Any) -> Any:
    """Add lane t to `array[base + indices[start + t]]`, one lane after the other, so that equal indices add up."""
    _vectors_of(types.float64, array=array)
    _vectors_of(types.int64, indices=indices)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, base, indices, start, value = args
        origin = _element(context, builder, sig.args[0], array, base)
        for lane in range(LANES):
            offset = _index_of(context, builder, sig.args[2], indices, start, lane)
            _check(context, builder, sig.args[0], array, builder.add(base, offset))
            pointer = builder.gep(origin, [offset])
            element = builder.extract_element(value, ir.Constant(_I32, lane))
            builder.store(builder.fadd(builder.load(pointer), element), pointer)
        return context.get_dummy_value()

    return types.void(array, types.intp, indices, types.intp, vec), codegen


def _index_of(context: Any, builder: Any, array_type: Any, indices: Any, start: Any, lane: int) -> Any:
    position = builder.add(start, ir.Constant(start.type, lane))
    _check(context, builder, array_type, indices, position)
    stored = builder.load(_element(context, builder, array_type, indices, position))
    return context.cast(builder, stored, array_type.dtype, types.intp)


@intrinsic
def select(typingctx: Any, condition: Any, yes: Any, no: Any) -> Any:
    """Lanes of `yes` where the mask holds, of `no` elsewhere."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(*args)

    return vec(mask, vec, vec), codegen


@intrinsic
def anywhere(typingctx: Any, condition: Any) -> Any:
    """Whether the mask holds in some lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(mask), codegen


def _unary(name: str) -> Any:
    def emit(builder: Any, value: Any) -> Any:
        kind = ir.FunctionType(_DOUBLES, [_DOUBLES])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f64")
        return builder.call(function, [value])

    return emit


def _larger(builder: Any, left: Any, right: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", left, right), left, right)


def _smaller(builder: Any, left: Any, right: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", left, right), left, right)


@intrinsic
def maximum(typingctx: Any, left: Any, right: Any) -> Any:
    """Lanewise maximum."""
    return vec(vec, vec), lambda context, builder, sig, args: _larger(builder, *args)


@intrinsic
def minimum(typingctx: Any, left: Any, right: Any) -> Any:
    """Lanewise minimum."""
    return vec(vec, vec), lambda context, builder, sig, args: _smaller(builder, *args)


@intrinsic
def absolute(typingctx: Any, value: Any) -> Any:
    """Lanewise absolute value."""
    return vec(vec), lambda context, builder, sig, args: _unary("fabs")(builder, args[0])


@intrinsic
def square_root(typingctx: Any, value: Any) -> Any:
    """Lanewise square root."""
    return vec(vec), lambda context, builder, sig, args: _unary("sqrt")(builder, args[0])


@intrinsic
def lane_sum(typingctx: Any, value: Any) -> Any:
    """Sum of the lanes, in a fixed order."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        parts = [builder.extract_element(args[0], ir.Constant(_I32, lane)) for lane in range(LANES)]
        while len(parts) > 1:
            half = len(parts) // 2
            parts = [builder.fadd(parts[k], parts[k + half]) for k in range(half)]
        return parts[0]

    return types.float64(vec), codegen


# exp(x) = 2^k exp(r) with k = round(x / log 2) and |r| <= log(2)/2, where the Taylor polynomial of degree 13 is exact
# to rounding. Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits, from where it is shifted into the
# exponent. log 2 is split in two so that k * log 2 loses nothing.
_LOG2_HIGH, _LOG2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_SHIFTER = 6755399441055744.0
_EXP_LOWEST = -708.0


@intrinsic
def exp(typingctx: Any, value: Any) -> Any:
    """Lanewise exponential of arguments up to 700; below -708 it is 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def multiply_add(x: Any, y: Any, z: Any) -> Any:
            return builder.fadd(builder.fmul(x, y, flags=_CONTRACT), z, flags=_CONTRACT)

        x = _larger(builder, args[0], _constant(_EXP_LOWEST))
        shifted = multiply_add(x, _constant(1.4426950408889634), _constant(_SHIFTER))
        k = builder.fsub(shifted, _constant(_SHIFTER))
        r = multiply_add(k, _constant(-_LOG2_HIGH), x)
        r = multiply_add(k, _constant(-_LOG2_LOW), r)
        coefficients = [1.0]
        for degree in range(1, 14):
            coefficients.append(coefficients[-1] / degree)
        polynomial = _estrin(builder, multiply_add, r, coefficients)
        exponent = builder.shl(
            builder.bitcast(shifted, _LONGS), ir.Constant(_LONGS, [ir.Constant(ir.IntType(64), 52)] * LANES)
        )
        scaled = builder.bitcast(builder.add(builder.bitcast(polynomial, _LONGS), exponent), _DOUBLES)
        vanishes = builder.fcmp_ordered("<", args[0], _constant(_EXP_LOWEST))
        return builder.select(vanishes, _constant(0.0), scaled)

    return vec(vec), codegen


def _estrin(builder: Any, multiply_add: Any, x: Any, coefficients: list[float]) -> Any:
    """Evaluate a polynomial in a tree, whose branches the processor takes side by side."""
    terms = [_constant(c) for c in coefficients]
    power = x
    while len(terms) > 1:
        paired = [multiply_add(terms[k + 1], power, terms[k]) for k in range(0, len(terms) - 1, 2)]
        terms = paired + terms[len(paired) * 2 :]
        power = builder.fmul(power, power)
    return terms[0]


# log(x) = k log 2 + 2 artanh(s), s = (m - 1)/(m + 1), with x = 2^k m and m within a factor sqrt(2) of one.
_ONE_BITS, _ROOT_BITS = 0x3FF0000000000000, 0x3FE6A09E667F3BCD


@intrinsic
def log(typingctx: Any, value: Any) -> Any:
    """Lanewise natural logarithm of positive normal numbers."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def long(number: int) -> Any:
            return ir.Constant(_LONGS, [ir.Constant(ir.IntType(64), number)] * LANES)

        def multiply_add(x: Any, y: Any, z: Any) -> Any:
            return builder.fadd(builder.fmul(x, y, flags=_CONTRACT), z, flags=_CONTRACT)

        bits = builder.bitcast(args[0], _LONGS)
        k = builder.ashr(builder.sub(bits, long(_ROOT_BITS)), long(52))
        m = builder.bitcast(builder.sub(bits, builder.shl(k, long(52))), _DOUBLES)
        s = builder.fdiv(builder.fsub(m, _constant(1.0)), builder.fadd(m, _constant(1.0)))
        square = builder.fmul(s, s)
        series = _estrin(builder, multiply_add, square, [2.0 / (2 * j + 3) for j in range(10)])
        tail = builder.fmul(builder.fmul(series, square), s)
        k_float = builder.sitofp(k, _DOUBLES)
        low = multiply_add(k_float, _constant(_LOG2_LOW), tail)
        low = builder.fadd(low, builder.fmul(s, _constant(2.0)))
        return multiply_add(k_float, _constant(_LOG2_HIGH), low)

    return vec(vec), codegen
