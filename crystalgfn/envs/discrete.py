"""Partial crystals, and the moves that choose the number of elements, the space group and the composition."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from crystalgfn.crystallography import elements, space_groups
from crystalgfn.crystallography.crystals import Crystals
from crystalgfn.envs.base import Discrete, Head, Lookahead
from crystalgfn.space.charge_lookahead import ChargeSets, LastTwo, Multisets, to_tensor
from crystalgfn.space.space import CrystalSpace
from crystalgfn.space.sum_lookahead import SumLookahead
from crystalgfn.typing import Compositions, Integers, Mask, RowIndex


@dataclass(kw_only=True)
class CrystalState:
    """Partial crystals, batch first; -1, 0 or NaN where not yet decided.

    Attributes:
        n_elements: [B]; the place of the lattice system, point symmetry and space group: system, symmetry, group.
        node: of the trie of count patterns, at last the pattern; counts: its counts, [B, K].
        left: the multiset of counts that no element has taken yet.
        charge: packed sets of charges that are reached, [B, 2, words].
        element, amount: columns of the elements and their atoms, [B, K].
        volume_sums: sums over the atoms so far that limit the volume (`MaskRules.volumes`), [B, L].
        typical_volume: what the atoms so far take up in known crystals, Å3.
        angles: in degrees, [B, 3]; u, v: ln(a/b), ln(b/c); log_volume: ln of the volume per atom, Å3.
    """

    n_elements: torch.Tensor
    system: torch.Tensor
    symmetry: torch.Tensor
    group: torch.Tensor
    node: torch.Tensor
    counts: torch.Tensor
    left: torch.Tensor
    charge: torch.Tensor
    element: torch.Tensor
    amount: torch.Tensor
    volume_sums: torch.Tensor
    typical_volume: torch.Tensor
    angles: torch.Tensor
    u: torch.Tensor
    v: torch.Tensor
    log_volume: torch.Tensor


GROUP_MOVES = ("n_elements", "system", "symmetry", "group")


class GroupMoves:
    """Look-up masks from the number of count patterns that each group admits."""

    def __init__(self, space: CrystalSpace, device: torch.device) -> None:
        table = space.tables
        k_max = space.n_elements[1]
        n_elements = table.composition.n_elements
        admits = np.stack([table.allowed[:, n_elements == k].any(1) for k in range(k_max + 1)])  # [K + 1, 230]
        member = np.zeros((8, 5, 230), dtype=bool)
        member[space_groups.CRYSTAL_LATTICE_SYSTEM, space_groups.POINT_SYMMETRY, np.arange(230)] = True
        group = admits[:, None, None, :] & member  # [K + 1, 8, 5, 230]
        self.group = torch.from_numpy(group).to(device)
        self.symmetry = self.group.any(3)
        self.system = self.symmetry.any(2)
        self.n_elements = self.system.any(1)
        self.system_of = torch.tensor(np.asarray(space_groups.CRYSTAL_LATTICE_SYSTEM), device=device).long()
        self.symmetry_of = torch.tensor(np.asarray(space_groups.POINT_SYMMETRY), device=device).long()
        self.heads = (
            Head(name="n_elements", size=k_max + 1),
            Head(name="system", size=8),
            Head(name="symmetry", size=5),
            Head(name="group", size=230),
        )

    def mask(self, state: CrystalState, head: str, rows: RowIndex) -> Mask:
        """What the rows may choose, bool [rows, actions]."""
        k = state.n_elements[rows]
        if head == "n_elements":
            return self.n_elements.expand(len(rows), -1)
        if head == "system":
            return self.system[k]
        if head == "symmetry":
            return self.symmetry[k, state.system[rows]]
        return self.group[k, state.system[rows], state.symmetry[rows]]

    def apply(self, state: CrystalState, head: str, rows: RowIndex, action: torch.Tensor) -> None:
        """Write the choice."""
        getattr(state, head)[rows] = action

    def read(self, plan: CrystalState, crystals: Crystals) -> None:
        """The choices that lead to given crystals."""
        known = (crystals.space_group >= 1) & (crystals.space_group <= 230)
        index = (crystals.space_group - 1).clamp(0, 229)
        plan.group = torch.where(known, index, -1)
        plan.system, plan.symmetry = self.system_of[index], self.symmetry_of[index]
        size = self.n_elements.shape[0]
        plan.n_elements = torch.where(plan.n_elements < size, plan.n_elements, -1)

    def forced(self, plan: CrystalState, head: str, rows: RowIndex) -> torch.Tensor:
        """The planned choice."""
        return getattr(plan, head)[rows]


def turn_names(k_max: int) -> list[str]:
    """count0 ... count(K-1), element0 ... element(K-1)."""
    return [f"count{i}" for i in range(k_max)] + [f"element{i}" for i in range(k_max)]


def position(name: str) -> int:
    """Which count or element a move chooses, from 0."""
    return int(name.lstrip("countelm"))


class CompositionMoves:
    """Look-up masks for counts and (count, element) pairs; nothing loops over the batch."""

    def __init__(self, space: CrystalSpace, device: torch.device) -> None:
        tables = space.tables
        table = tables.composition

        put = partial(to_tensor, device=device)
        self.k_max = space.n_elements[1]
        self.names = frozenset(turn_names(self.k_max))
        self.child, self.low, self.high = put(table.pattern_child), put(table.pattern_low), put(table.pattern_high)
        self.below, self.leftover = put(tables.below), put(table.leftover)
        self.multisets = Multisets(table, device)
        self.slot_count = self.multisets.count
        self.first, self.after = put(table.first), put(table.after)
        self.finish = put(table.finish).flatten(0, 1)
        self.sets = ChargeSets(table, space.alloys, device)
        self.last_two = LastTwo(table, self.sets, space.alloys) if self.k_max > 2 else None
        self.initial_charge = self.sets.initial
        self.sums = None
        if tables.sums is not None:
            self.sums = SumLookahead(space.rules.composition, table, tables.sums.weights, device, tables.completions)
            self.sum_ranges = put(tables.sums.ranges)
        self.zs = put(np.array(space.element_numbers, dtype=np.int64))
        own = np.array(space.element_numbers) - 1
        self.volumes = put(elements.VOLUME[own])
        limits = [limit.weights[own] for limit in space.rules.volumes]
        self.limited = put(np.stack(limits, axis=1)) if limits else None
        self.n_elements, self.n_slots = len(self.zs), self.slot_count.shape[1]
        column = np.full(119, -1)
        column[np.array(space.element_numbers)] = np.arange(self.n_elements)
        self.column_of = put(column)
        counts = self.child.shape[1]
        self.heads = (
            *(Head(name=f"count{i}", size=counts) for i in range(self.k_max)),
            *(Head(name=f"element{i}", size=(self.n_slots - i) * self.n_elements, elements=space.element_numbers)
              for i in range(self.k_max)),
        )  # fmt: skip

    def options(self, state: CrystalState, head: str, rows: RowIndex) -> Discrete:
        """Counts [rows, C + 1], or pairs [rows, slots * elements]."""
        if head.startswith("count"):
            completions = self._completions(state, rows)
            return Discrete(completions > 0)
        left = state.left[rows]
        i = position(head)
        slots = self.n_slots - i  # what is left has no more different counts
        if self.sums is not None:
            may = self._limited_options(state, rows, i)[:, :slots]
        elif i == 0:
            may = self.first[state.node[rows]]
        else:
            charge = state.charge[rows].flatten(1)
            common = torch.zeros(len(rows), slots, self.n_elements, dtype=torch.int64, device=rows.device)
            for table, word in zip(self.finish, charge.unbind(1), strict=True):
                common |= table.index_select(0, left)[:, :slots] & word[:, None, None]
            may = (common != 0) & self.after[state.element[rows, i - 1] + 1][:, None, :]
        two = (state.n_elements[rows] == i + 2).nonzero().flatten() if i > 0 else rows[:0]
        last = self._last(state, rows, two, may) if len(two) else None
        return Discrete(may.flatten(1), self.slot_count[left, :slots], last)

    def _last(self, state: CrystalState, rows: RowIndex, two: Integers, may: torch.Tensor) -> Lookahead:
        """Which elements may take the last count after each of the pairs ``may`` [rows, slots, E], where two are left.

        Limits on sums over the atoms are not looked at: this guides the policy, and forbids nothing.
        """
        row, slot, column = may[two].nonzero().unbind(1)
        at = rows[two]
        assert self.last_two is not None  # two counts are left
        follows = self.last_two.may(state.charge[at], state.left[at], row, slot, column)
        return Lookahead(two[row], slot * self.n_elements + column, follows)

    def _limited_options(self, state: CrystalState, rows: RowIndex, i: int) -> torch.Tensor:
        """Pairs from which limits on sums over the atoms can be met too, [rows, S, E]."""
        assert self.sums is not None
        atoms = state.counts[rows].sum(1)
        element = state.element[rows]
        spent = torch.where(element >= 0, state.amount[rows], 0).double()[..., None] * self.sums.weights[element]
        low, high = (self.sum_ranges[state.group[rows], atoms] - spent.sum(1)[..., None]).unbind(-1)
        if i == 0:
            return self.sums.first_options(state.node[rows], low, high)
        return self.sums.next_options(state.charge[rows], state.element[rows, i - 1], state.left[rows], low, high)

    def _completions(self, state: CrystalState, rows: RowIndex) -> torch.Tensor:
        """How many patterns that the group admits begin with each count, [rows, C + 1]."""
        child = self.child[state.node[rows]]
        k = state.n_elements[rows][:, None].expand_as(child)
        group = state.group[rows][:, None]
        safe = child.clamp_min(0)
        number = self.below[group, self.high[safe, k]] - self.below[group, self.low[safe, k]]
        return torch.where(child >= 0, number.long(), 0)

    def apply(self, state: CrystalState, head: str, rows: RowIndex, action: torch.Tensor) -> None:
        """Write a count, or hand a count to an element and add its charges."""
        i = position(head)
        if head.startswith("count"):
            node = self.child[state.node[rows], action]
            state.counts[rows, i] = action
            last = state.n_elements[rows] == i + 1
            pattern = self.low[node.clamp_min(0), state.n_elements[rows]]
            state.node[rows] = torch.where(last, pattern, node)  # at the end the number of the pattern itself
            state.left[rows] = torch.where(last, self.leftover[pattern.clamp_max(len(self.leftover) - 1)], -1)
            return
        slot, column = action // self.n_elements, action % self.n_elements
        left = state.left[rows]
        count = self.slot_count[left, slot]
        state.element[rows, i], state.amount[rows, i] = column, count
        if self.limited is not None:
            state.volume_sums[rows] += self.limited[column] * count[:, None]
        state.typical_volume[rows] += self.volumes[column] * count
        state.left[rows] = self.multisets.rest(left, slot, column)
        more = (state.n_elements[rows] > i + 1).nonzero().flatten()
        state.charge[rows[more]] = self.sets.after(state.charge[rows[more]], column[more], count[more])

    def compositions(self, state: CrystalState) -> Compositions:
        """Atoms per element, int64 [B, 118]."""
        out = torch.zeros(len(state.n_elements), 119, dtype=torch.int64, device=state.n_elements.device)
        z = torch.where(state.element >= 0, self.zs[state.element.clamp_min(0)], 0)
        out.scatter_(1, z, state.amount)
        return out[:, 1:]

    def read(self, plan: CrystalState, crystals: Crystals) -> None:
        """The counts and elements of given crystals, in the order in which they are drawn."""
        composition = crystals.composition
        counts = composition.sort(1, descending=True).values[:, : self.k_max]
        plan.counts = counts
        here = composition[:, self.zs - 1] > 0  # in the order of the draws
        rank = torch.where(here, torch.arange(self.n_elements, device=here.device), self.n_elements)
        order = rank.sort(1).values[:, : self.k_max]
        if order.shape[1] < self.k_max:
            padding = torch.full((len(order), self.k_max - order.shape[1]), self.n_elements, device=order.device)
            order = torch.cat([order, padding], 1)
        plan.element = torch.where(order < self.n_elements, order, -1)
        amount = composition.gather(1, self.zs[order.clamp_max(self.n_elements - 1)] - 1)
        plan.amount = torch.where(plan.element >= 0, amount, 0)
        foreign = composition.sum(1) != plan.amount.sum(1)  # elements that the space does not have
        plan.element[foreign] = -1

    def forced(self, plan: CrystalState, state: CrystalState, head: str, rows: RowIndex) -> torch.Tensor:
        """The planned count or pair; -1 where the space has none."""
        i = position(head)
        if head.startswith("count"):
            count = plan.counts[rows, i]
            return torch.where(count < self.child.shape[1], count, -1)
        column = plan.element[rows, i]
        same = self.slot_count[state.left[rows], : self.n_slots - i] == plan.amount[rows, i, None]
        slot = same.long().argmax(1)
        return torch.where(same.any(1) & (column >= 0), slot * self.n_elements + column, -1)
