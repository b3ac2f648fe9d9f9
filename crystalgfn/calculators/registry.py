"""Calculators by name: shipped ones, those of installed packages, a user's own.

A package offers a class, or a function that returns a calculator, in its ``pyproject.toml``::

    [project.entry-points."crystalgfn.calculators"]
    mine = "my_package.calculators:Mine"
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from crystalgfn.calculators.base import Calculator
from crystalgfn.errors import CalculatorError, CrystalGFNError, sentence

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "crystalgfn.calculators"
DEFAULT = "chgnet"
SHIPPED = {DEFAULT: "crystalgfn.calculators.chgnet:CHGNet", "sevennet": "crystalgfn.calculators.sevennet:SevenNet"}
"""Name -> factory; what follows the name after a colon is its argument."""
NEEDED = ("name", "knows", "energies", "forces_and_stress")


def load_calculator(spec: Any = DEFAULT) -> Calculator:
    """A calculator, ready to use.

    Args:
        spec: "chgnet"; "sevennet" (7net-l3i5) or "sevennet:7net-0"; the name of an entry point
            ``crystalgfn.calculators``; "module:factory" of your own, where ``factory`` is a calculator, a class of one
            or a function that returns one; a calculator of ase (an instance); or a `Calculator`, which is returned.

    Raises:
        CalculatorError: there is no such calculator, or it is not one.
        NotAvailable: its package is not installed.

    Example:
        >>> from ase.calculators.lj import LennardJones
        >>> load_calculator(LennardJones(sigma=3.4, epsilon=0.0103)).name
        'LennardJones'
    """
    if not isinstance(spec, str):
        return _as_calculator(spec, type(spec).__name__)
    name, colon, argument = spec.partition(":")
    found = SHIPPED.get(name.lower())
    if found is None:
        points = installed()
        if name in points:
            found = points[name].value
        elif colon and name and argument:
            found, colon = spec, ""
        else:
            offered = ", ".join([*SHIPPED, *points])
            raise CalculatorError(
                f"there is no calculator {spec!r}; give one of {offered}, module:factory of your own, or a calculator "
                "of ase"
            )
    return _as_calculator(_made(found, (argument,) if colon else (), spec), spec)


def installed() -> dict[str, EntryPoint]:
    """The calculators of installed packages, by name."""
    return {point.name: point for point in sorted(entry_points(group=GROUP), key=lambda point: point.name)}


def _made(target: str, arguments: tuple[str, ...], spec: str) -> Any:
    """What stands at ``module:name``, called where it can be."""
    module, _, name = target.partition(":")
    try:
        found = getattr(import_module(module), name)
        is_factory = isinstance(found, type) or not _is_calculator(found)
        return found(*arguments) if callable(found) and is_factory else found
    except CrystalGFNError:
        raise
    except ModuleNotFoundError as error:
        raise CalculatorError(
            f"calculator={spec}: {sentence(error)}; modules are looked for in the working folder and among the "
            "installed packages"
        ) from error
    except Exception as error:
        raise CalculatorError(f"calculator={spec}: {type(error).__name__}: {sentence(error)}") from error


def _is_calculator(found: Any) -> bool:
    return all(hasattr(found, name) for name in NEEDED) or hasattr(found, "get_potential_energy")


def _as_calculator(found: Any, spec: str) -> Calculator:
    """A calculator of this package or of ase, as one of this package."""
    if isinstance(found, Calculator):
        return found
    if hasattr(found, "get_potential_energy") and hasattr(found, "implemented_properties"):
        from crystalgfn.calculators.ase import ASECalculator

        return ASECalculator(found)
    lacking = [name for name in NEEDED if not hasattr(found, name)]
    raise CalculatorError(
        f"calculator={spec} is a {type(found).__name__}, no calculator: it lacks {', '.join(lacking)} "
        "(crystalgfn.calculators.base.Calculator), and it is none of ase"
    )
