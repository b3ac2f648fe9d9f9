"""The contract of a constraint, tried on random crystals: the masks of the moves and its words must agree."""

from __future__ import annotations

import json

import torch

from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.envs.base import Discrete
from crystalgfn.envs.crystal import CrystalEnvironment
from crystalgfn.errors import InvalidSpace
from crystalgfn.space.constraint import Constraint
from crystalgfn.space.space import CrystalSpace
from crystalgfn.typing import Booleans

SMALL = {"elements": ("Li", "Cs", "Fe", "O", "S", "F", "Cl"), "n_atoms": (1, 8), "n_elements": (1, 4)}
"""The space in which a constraint is tried where none is given."""


def check_constraint(constraint: Constraint, space: CrystalSpace | None = None, n: int = 300, seed: int = 0) -> None:
    """Check the contract of a constraint: masks and words agree, and it is a value that can be saved.

    Random crystals of the space with the constraint must obey it, and random crystals of the space without it must be
    within reach of the moves exactly where they obey.

    Args:
        constraint: what is checked.
        space: in which it is tried; None: crystals of at most eight atoms of seven elements.
        n: random crystals.
        seed: of these.

    Raises:
        InvalidSpace: the first part of the contract that does not hold, in words.
    """
    lacking = [name for name in ("intersect", "mask", "explain", "to_dict") if not hasattr(constraint, name)]
    if lacking:
        raise InvalidSpace(f"{constraint!r} lacks {', '.join(lacking)} of a constraint")
    space = space or CrystalSpace(**SMALL)
    _check_value(constraint)
    limited = CrystalEnvironment(space.narrowed(constraints=(constraint,)))
    generator = torch.Generator().manual_seed(seed)
    crystals = random_crystals(limited, n, generator)
    check = constraint.explain(crystals)
    if check.ok.shape != (n,) or check.ok.dtype != torch.bool:
        raise InvalidSpace(f"{constraint!r}: explain must say true or false for each of {n} crystals")
    for i in (~check.ok).nonzero().flatten().tolist():
        raise InvalidSpace(f"{constraint!r}: its masks let through what it refuses: {check.reason(i)}")
    others = random_crystals(CrystalEnvironment(space), n, generator)
    _check_words(constraint, others, reachable(limited, others))


def _check_value(constraint: Constraint) -> None:
    """It equals itself, and what it was made from can be saved."""
    if constraint.intersect(constraint) != constraint or len({constraint, constraint}) != 1:
        raise InvalidSpace(f"{constraint!r}: intersected with itself it must equal itself; make it a frozen dataclass")
    if type(constraint)(**json.loads(json.dumps(constraint.to_dict()))) != constraint:
        raise InvalidSpace(f"{constraint!r}: the arguments that to_dict names, as JSON has them, must make it again")


def _check_words(constraint: Constraint, crystals: Crystals, reached: Booleans) -> None:
    """It refuses the crystals that its masks do not reach, and those alone, in words."""
    check = constraint.explain(crystals)
    for i in (check.ok != reached).nonzero().flatten().tolist():
        words = "lets through" if bool(check.ok[i]) else "refuses"
        raise InvalidSpace(
            f"{constraint!r}: explain {words} {crystals.formulas()[i]} in space group {int(crystals.space_group[i])}, "
            "and its masks do not agree"
        )
    if any(not isinstance(check.reason(i), str) for i in (~check.ok).nonzero().flatten().tolist()):
        raise InvalidSpace(f"{constraint!r}: explain must give a reason in words for each crystal that it refuses")
    if len(constraint.explain(crystals[:0]).ok):
        raise InvalidSpace(f"{constraint!r}: explain must answer for no crystals too")


def random_crystals(env: CrystalEnvironment, n: int, generator: torch.Generator) -> Crystals:
    """Crystals of moves that are uniform among those allowed, [n]."""
    state = env.initial(n)
    for head, rows in env.turns(state):
        options = env.options(state, head, rows)
        if isinstance(options, Discrete):
            action = torch.multinomial(options.mask.double(), 1, generator=generator).squeeze(1)
        else:
            widths = (options.pieces[..., 1] - options.pieces[..., 0]).clamp_min(0)
            piece = torch.multinomial(widths, 1, generator=generator)
            low = options.pieces[..., 0].gather(1, piece).squeeze(1)
            draw = torch.rand(len(rows), dtype=low.dtype, generator=generator)
            action = low + draw * widths.gather(1, piece).squeeze(1)
        env.apply(state, head, rows, action)
    return env.objects(state)


def reachable(env: CrystalEnvironment, crystals: Crystals) -> Booleans:
    """Whether the discrete moves and intervals of an environment lead to given crystals, bool [B]."""
    n = len(crystals)
    state, plan = env.initial(n), env.replay(crystals)
    valid = torch.ones(n, dtype=torch.bool)
    for head, rows in env.turns(state):
        options, action = env.options(state, head, rows), env.forced(plan, state, head, rows)
        if isinstance(options, Discrete):
            inside = (action >= 0) & (action < options.mask.shape[1])
            inside &= options.mask.gather(1, action.clamp(0, options.mask.shape[1] - 1)[:, None]).squeeze(1)
            action = torch.where(inside, action, options.mask.long().argmax(1))
        else:
            slack = env.heads[head].slack
            low, high = options.pieces.unbind(-1)
            inside = ((action[:, None] >= low - slack) & (action[:, None] <= high + slack)).any(1)
            action = torch.where(inside, action, low.amax(1))
        valid[rows] &= inside
        env.apply(state, head, rows, action)
    return valid
