"""Dimensions as they are written in the file: arithmetic over names, simplified as far as integers allow.

``(32*h - 1)//32 + 1`` is ``h``, since a size is an integer. Nothing is assumed about ranges, which are those
of the example's capture and not of the file; that the model divides a size evenly is a condition of the file.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping

import sympy
from torch.utils._sympy.functions import CeilDiv, CleanDiv, FloorDiv, Mod, PythonMod

_DIVISIONS = (FloorDiv, CleanDiv, CeilDiv, Mod, PythonMod)


def text_of(expr: sympy.Basic, names: Mapping[sympy.Basic, str], divisible: Iterable[sympy.Basic] = ()) -> str:
    """The text of a dimension.

    Args:
        expr: an expression over integers.
        names: the names of symbols, and of other expressions, that were asked for.
        divisible: remainders (``Mod(size, 2)``) that are known to be 0.
    """
    expr = simplified(expr, divisible)
    if expr in names:
        return names[expr]
    named = {s: expression_of(names[s]) for s in expr.free_symbols if s in names}
    return str(simplified(expr.xreplace(named)) if named else expr).replace(" ", "")


def expression_of(text: str) -> sympy.Expr:
    """The arithmetic that a name was asked for as, such as ``32*h``; a name that is no arithmetic is one symbol."""
    try:
        return _parsed(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError):
        return sympy.Symbol(text, integer=True)


def _parsed(node: ast.expr) -> sympy.Expr:
    if isinstance(node, ast.Name):
        return sympy.Symbol(node.id, integer=True)
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return sympy.Integer(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in (ast.Add, ast.Sub, ast.Mult):
        left, right = _parsed(node.left), _parsed(node.right)
        if isinstance(node.op, ast.Mult):
            return left * right
        return left + right if isinstance(node.op, ast.Add) else left - right
    raise ValueError(f"no arithmetic: {ast.unparse(node)}")


def simplified(expr: sympy.Basic, divisible: Iterable[sympy.Basic] = ()) -> sympy.Basic:
    """An expression of the same value at all sizes, with as few divisions as can be.

    Args:
        expr: an expression over integers.
        divisible: remainders (``Mod(size, 2)``) that are known to be 0.
    """
    if not expr.has(*_DIVISIONS):
        return expr
    parts = {}
    for remainder in divisible:
        size, divisor = remainder.args
        if size.is_Symbol and size in expr.free_symbols and divisor.is_Integer:
            parts[size] = (int(divisor), sympy.Dummy(integer=True))
    plain = _reduced(expr)
    if not parts:
        return plain
    found = _reduced(expr.xreplace({size: k * part for size, (k, part) in parts.items()}))
    whole = sympy.expand(found.xreplace({part: size / k for size, (k, part) in parts.items()}))
    if all(number.is_Integer for number in whole.atoms(sympy.Number)) and not whole.has(*_DIVISIONS):
        return whole
    found = found.xreplace({part: FloorDiv(size, k) for size, (k, part) in parts.items()})
    return min(plain, found, key=sympy.count_ops)


def _reduced(expr: sympy.Basic) -> sympy.Basic:
    args = [_reduced(arg) for arg in expr.args]
    if args != list(expr.args):
        expr = expr.func(*args)
    if isinstance(expr, (FloorDiv, CleanDiv)):
        return _quotient(*expr.args)
    if isinstance(expr, CeilDiv):
        return -_quotient(-expr.args[0], expr.args[1])
    if isinstance(expr, (Mod, PythonMod)):
        return _remainder(expr)
    return _sum(expr) if expr.is_Add else expr


def _split(expr: sympy.Expr, divisor: int) -> tuple[sympy.Expr, sympy.Expr, int, int] | None:
    """``divisor*q + rest + constant``: q, rest, the constant, and what divides rest and divisor; None where not."""
    whole, rest, constant, common = sympy.Integer(0), sympy.Integer(0), 0, divisor
    for term in sympy.Add.make_args(sympy.expand(expr)):
        factor, of = term.as_coeff_Mul()
        if not factor.is_Integer or of.is_integer is not True:
            return None
        if of == 1:
            constant = int(factor)
        elif int(factor) % divisor == 0:
            whole += factor // divisor * of
        else:
            rest += term
            common = math.gcd(common, int(factor))
    return whole, rest, constant, common


def _quotient(a: sympy.Expr, b: sympy.Expr) -> sympy.Expr:
    """``floor(a / b)``."""
    if not b.is_Integer or b <= 0:
        exact = sympy.cancel(a / b) if not a.has(*_DIVISIONS) and not b.has(*_DIVISIONS) else a / b
        numbers = exact.atoms(sympy.Number, sympy.Pow)
        is_whole = all(n.is_Integer if n.is_Number else n.exp.is_nonnegative for n in numbers)
        return exact if is_whole else FloorDiv(a, b)
    parts = _split(a, int(b))
    if parts is None:
        return FloorDiv(a, b)
    whole, rest, constant, common = parts
    if rest == 0:
        return whole + constant // int(b)
    rest, constant, divisor = sympy.expand(rest / common), constant // common, int(b) // common
    if divisor == 1:
        return whole + rest + constant
    if isinstance(rest, FloorDiv) and rest.args[1].is_Integer and rest.args[1] > 0:
        inner, first = rest.args
        return whole + _quotient(inner + constant * first, first * divisor)
    return whole + FloorDiv(rest + constant, sympy.Integer(divisor))


def _remainder(expr: sympy.Expr) -> sympy.Expr:
    a, b = expr.args
    parts = _split(a, int(b)) if b.is_Integer and b > 0 else None
    if parts is None or parts[1] != 0:
        return expr
    return sympy.Integer(parts[2] % int(b))


def _sum(expr: sympy.Expr) -> sympy.Expr:
    """``(n - 1)//2 + 1`` is ``(n + 1)//2``."""
    constant, terms = expr.as_coeff_Add()
    if constant == 0 or not constant.is_Integer or terms.is_Add:
        return expr
    factor, division = terms.as_coeff_Mul()
    if not isinstance(division, FloorDiv) or not division.args[1].is_Integer or constant % factor != 0:
        return expr
    a, b = division.args
    return factor * FloorDiv(a + constant // factor * b, b)
