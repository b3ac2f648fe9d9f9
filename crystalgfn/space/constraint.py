"""What a constraint is: one rule that narrows the space, in the masks, in words, and as plain data.

A constraint is one class with four methods, so that one more is one more file (docs/how-to/add-a-constraint.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from crystalgfn.errors import InvalidSpace
from crystalgfn.typing import Booleans

if TYPE_CHECKING:
    from crystalgfn.crystallography.crystals import Crystals
    from crystalgfn.space.rules import MaskRules

GROUP = "crystalgfn.constraints"
"""Entry points of packages that bring constraints: name -> class."""


@dataclass(frozen=True)
class Check:
    """Which crystals of a batch obey a rule.

    Attributes:
        ok: bool [B].
        reason: crystal number -> why it does not obey, in words.
    """

    ok: Booleans
    reason: Callable[[int], str]


@runtime_checkable
class Constraint(Protocol):
    """A rule on crystals. Constraints are values: frozen, comparable and hashable."""

    def intersect(self, other: Self) -> Self:
        """The constraint that holds where both do.

        Raises:
            EmptySpace: nothing obeys both.
        """
        ...

    def mask(self, tables: MaskRules) -> None:
        """Put the rule into the masks of the moves."""
        ...

    def explain(self, crystals: Crystals) -> Check:
        """Which crystals obey, and why the others do not; independent of the masks."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The arguments that make the constraint, as plain lists, numbers and text."""
        ...


def given(values: Any) -> tuple[Constraint, ...]:
    """Constraints as a user gives them: objects, or saved as {"constraint": name of an entry point, argument: value}.

    Raises:
        InvalidSpace: something else, or a name that no installed package offers.
    """
    if values is None:
        return ()
    if isinstance(values, Mapping) or not isinstance(values, (list, tuple)):
        values = (values,)
    found: list[Constraint] = []
    for value in values:
        if isinstance(value, Mapping):
            value = _restored(dict(value))
        if isinstance(value, type) or not isinstance(value, Constraint):
            raise InvalidSpace(
                f"constraints: {value!r} has not the methods intersect, mask, explain and to_dict of a constraint"
            )
        found.append(value)
    return tuple(found)


def saved(constraint: Constraint) -> dict[str, Any]:
    """A user's constraint as plain data that `given` reads: the name of its class's entry point and its arguments."""
    return {"constraint": _name_of(type(constraint)), **constraint.to_dict()}


def _name_of(kind: type) -> str:
    for point in entry_points(group=GROUP):
        if point.value == f"{kind.__module__}:{kind.__qualname__}":
            return point.name
    return f"{kind.__module__}:{kind.__qualname__}"


def _restored(values: dict[str, Any]) -> Constraint:
    name = values.pop("constraint", None)
    offered = {point.name: point for point in entry_points(group=GROUP)}
    if name not in offered:
        # a saved space may be a stranger's: only what is installed as a constraint is imported
        raise InvalidSpace(
            f"there is no constraint {name!r}; installed are {', '.join(sorted(offered)) or 'none'}. Its package must "
            f"name it as an entry point in the group {GROUP}, or give the constraint itself"
        )
    return offered[name].load()(**values)
