"""A prompt in plain English, such as "cubic Li-Mn-O oxide, stable", as constraints and a goal by exact rules.

The same words always give the same result, and what is not understood is said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from crystalgfn.app import vocabulary as words
from crystalgfn.app.forms import Prompt
from crystalgfn.crystallography.space_groups import number_of, words_for

LONGEST = 500
"""Letters of a prompt."""
_TOKEN = re.compile(r"[A-Za-z0-9(][A-Za-z0-9_/().'–+-]*(?<![.'–+-])|-\d|[,;:&]")
_ANONYMOUS = re.compile(r"(?:[ABCDEGMRTXYZ]\d{0,2}){2,}")
_NOT = {"without", "no", "not", "excluding", "exclude", "except", "free", "avoid", "avoiding", "nor"}
_MAY = {"optionally", "maybe", "possibly", "may"}
_BETWEEN = {",": "and", "and": "and", "&": "and", "or": "or", "/": "and", "nor": "and", "plus": "and"}


def read_prompt(text: str) -> Prompt:
    """Read a prompt.

    Example:
        >>> said = read_prompt("cubic Li-Mn-O oxide, stable and shiny")
        >>> said.must, said.others, said.fields
        (['Li', 'Mn', 'O'], False, {'crystal_systems': ['cubic'], 'goal': 'stable'})
        >>> said.not_understood
        ['shiny']
    """
    reader = _Reader(_TOKEN.findall(text[:LONGEST]))
    reader.read()
    said = reader.said
    if len(text) > LONGEST:
        said.not_understood.append(f"what comes after {LONGEST} letters")
    if said.fields.get("goal") == "conductor":
        _check_ions(said)
    _settle(said)
    return said


def _settle(said: Prompt) -> None:
    """Each element one mark: what is asked for is not only allowed, and not excluded."""
    said.may = [one for one in said.may if one not in said.must]
    both = [one for one in said.excluded if one in said.must]
    said.not_understood += [f"{one} both asked for and excluded" for one in both]
    said.excluded = [one for one in said.excluded if one not in both]
    if said.may and not (said.must or said.any_of):
        said.others = False  # "may hold Na, K" names what there may be


def _check_ions(said: Prompt) -> None:
    """The shipped sampler knows conductors of Li alone."""
    others = [one for one in said.must if one in words.IONS]
    if others and "Li" not in said.must:
        del said.fields["goal"]
        said.not_understood.append(f"a conductor of {others[0]} ions (only those of Li can be asked for)")
    else:
        _join(said.must, ["Li"])


def _join(own: list[Any], more: Sequence[Any]) -> None:
    """Add what is not there yet."""
    own += [one for one in dict.fromkeys(more) if one not in own]


class _Reader:
    """Reads words from left to right; each rule takes as many as it understands."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens, self.at, self.said = list(tokens), 0, Prompt()
        self.rules = (
            self._negation, self._maybe, self._space_group, self._atoms, self._gap, self._count, self._prototype,
            self._goal, self._symmetry, self._kind, self._free_of, self._elements, self._formula, self._only,
            self._split,
        )  # fmt: skip

    def read(self) -> None:
        """Until no word is left."""
        while self.at < len(self.tokens):
            if not any(rule() for rule in self.rules):
                word = self.tokens[self.at]
                if word.lower() not in words.FILLERS and word not in ",;:&" and word.lower() not in _BETWEEN:
                    self.said.not_understood.append(word)
                self.at += 1

    def _word(self, ahead: int = 0) -> str:
        at = self.at + ahead
        return self.tokens[at] if 0 <= at < len(self.tokens) else ""

    def _took(self, n: int, meaning: str) -> bool:
        """Count ``n`` words as understood."""
        self.said.understood.append((" ".join(self.tokens[self.at : self.at + n]), meaning))
        self.at += n
        return True

    def _add(self, name: str, values: Sequence[Any]) -> None:
        _join(self.said.fields.setdefault(name, []), values)

    def _listed(self, start: int, families: bool = True) -> tuple[list[str], int, bool]:
        """Elements in a list from the word ``start`` ahead: symbols, where it ends, and whether it says "or"."""
        found: list[str] = []
        end, at, either, or_before = start, start, False, False
        while own := self._symbols(at, families):
            found += [one for one in own if one not in found]
            either |= or_before
            end = at = at + 1
            or_before = False
            while self._word(at).lower() in _BETWEEN:
                or_before |= _BETWEEN[self._word(at).lower()] == "or"
                at += 1
            if at == end:
                break  # "K cobalt": nothing between, so no list
        return found, end, either

    def _symbols(self, ahead: int, families: bool = True) -> tuple[str, ...]:
        word, place = self._word(ahead), self.at + ahead
        if word in words.WORDS_TOO and place == 0 and self._word(ahead + 1).lower() not in {"", *_BETWEEN}:
            return ()
        name = words.singular(word)
        family = words.ONE_OF.get(name, ()) if families else ()
        return words.named_elements(word) or words.COMPOUNDS.get(name, ()) or family

    def _negation(self) -> bool:
        """Without Pb or Cd; no halides; non-cubic."""
        if self._word().lower() not in _NOT:
            return False
        skip = 1
        while self._word(skip).lower() in {"of", "containing", "with", "any"}:
            skip += 1
        found, end, _ = self._listed(skip)
        pairs = [
            one for one in map(self._word, range(skip, end)) if len(words.COMPOUNDS.get(words.singular(one), ())) > 1
        ]
        if pairs:  # no phosphates: P and O may still occur, each without the other
            self.said.not_understood.append(f"{self._word()} {pairs[0]}")
            self.at += end
        elif found:
            _join(self.said.excluded, found)
            self._took(end, f"no {', '.join(found)}")
        return bool(found)

    def _maybe(self) -> bool:
        """Optionally Na; with or without Na."""
        start = 1 if self._word().lower() in _MAY else 0
        if [self._word(k).lower() for k in range(3)] == ["with", "or", "without"]:
            start = 3
        while start and self._word(start).lower() in {"also", "contain", "hold", "have", "be"}:
            start += 1
        found, end, _ = self._listed(start) if start else ([], 0, False)
        if not found:
            return False
        self.said.may += found
        return self._took(end, f"{', '.join(found)} may occur")

    def _space_group(self) -> bool:
        """Space group 225; space groups 225 and Fm-3m; P2_1/c."""
        skip = 0
        while self._word(skip).lower().rstrip(".") in words.GROUP_WORDS:
            skip += 1
        named = any(self._word(k).lower() in {"sg", "group", "groups", "symmetry"} for k in range(skip))
        number = self._group(skip, named)
        if number is None or (skip and not named):
            return False
        numbers, end = [number], skip + 1
        while named and self._word(end).lower() in _BETWEEN and (number := self._group(end + 1, named)) is not None:
            numbers.append(number)
            end += 2
        self._add("space_groups", numbers)
        return self._took(end, ", ".join(words_for(one) for one in numbers))

    def _group(self, ahead: int, named: bool) -> int | None:
        """The space group that a word names; a formula or an element is none, unless it is said to be one."""
        word = self._word(ahead)
        plain = re.fullmatch(r"[PIFABCR][\d_]*[mncabde/\d_-]+", word)
        if not named and (not plain or words.formula_symbols(word) or words.named_elements(word)):
            return None
        try:
            return number_of(word)
        except ValueError:
            return None

    def _atoms(self) -> bool:
        """At most 14 atoms; 10-20 atoms; 14 atoms."""
        low, high, n = words.atoms_in(" ".join(self._word(k).lower() for k in range(7)))
        if not n:
            return False
        self.said.fields["n_atoms"] = [low, high]
        return self._took(n, f"{low} to {high} atoms in the primitive cell")

    def _gap(self) -> bool:
        """A band gap near 1.5 eV; 2 eV gap."""
        gap, n = words.gap_in(" ".join(self._word(k).lower() for k in range(8)))
        if not n:
            return False
        return self._goal_is("gap", n, gap)

    def _count(self) -> bool:
        """Ternary; three elements; 50 crystals; find 50."""
        first, second = self._word().lower(), self._word(1).lower()
        number = words.number_in(first)
        k = words.N_ELEMENTS.get(first, number if second == "elements" else 0)
        if 1 <= k <= 5:
            self.said.fields["n_elements"] = [k, k]
            return self._took(1 if first in words.N_ELEMENTS else 2, f"{k} element{'s' * (k > 1)}")
        counted = second in words.COUNTED
        if not number or not (counted or self._word(-1).lower() in words.ASKING):
            return False
        self.said.fields["n"] = number
        return self._took(2 if counted else 1, f"{number} crystals")

    def _only(self) -> bool:
        """Na and Cl only."""
        if self._word().lower() != "only" or not (self.said.must or self.said.may):
            return False
        self.said.others = False
        return self._took(1, "no other elements")

    def _prototype(self) -> bool:
        """Spinel; rock salt; NaCl-type; CsCl structure; double perovskite where there is one."""
        for n in range(4, 0, -1):
            name = " ".join(self._word(k) for k in range(n)).strip()
            typed = name.removesuffix("-type").removesuffix("-structured").removesuffix("-like")
            marked = typed != name or self._word(n).lower() in {"type", "structure", "prototype", "lattice"}
            own = [typed, words.singular(typed)] if len(typed) > 3 or marked else []
            known = next((one for one in own if words.is_prototype(one, marked)), None)
            whole = self.at + n <= len(self.tokens) and not set(self.tokens[self.at : self.at + n]) & set(",;:&")
            if known is not None and whole:
                self._add("prototypes", [known])
                return self._took(n, f"prototype {known}")
        return False

    def _goal(self) -> bool:
        """Stable; solid electrolyte; high density."""
        for n in (4, 3, 2):
            phrase = " ".join(words.singular(self._word(k)) for k in range(n)).replace("-", " ").strip()
            goal = words.PHRASES.get(phrase)
            if goal is not None:
                return self._goal_is(goal, n)
        goal = words.GOALS.get(self._word().lower())
        return goal is not None and self._goal_is(goal, 1)

    def _goal_is(self, goal: str, n: int, gap: float | None = None) -> bool:
        """Gap and conductor hold stability already; of two others the first counts."""
        now = self.said.fields.get("goal", "stable")
        if "stable" not in (now, goal) and now != goal:
            self.said.not_understood.append(f"goal {goal} beside {now}")
            self.at += n
            return True
        self.said.fields["goal"] = now if goal == "stable" else goal
        if goal == "gap":
            gap = self.said.fields["gap"] = words.BEST_GAP if gap is None else gap
        return self._took(n, f"goal: {goal}" + ("" if gap is None else f" near {gap:g} eV"))

    def _symmetry(self) -> bool:
        """Cubic; non-cubic; polar; centrosymmetric."""
        word, n = self._word().lower(), 1
        if word in _NOT and self._word(1).lower() in words.SYSTEMS:
            word, n = f"non-{self._word(1).lower()}", 2
        bare, now = word.removeprefix("non-"), self.said.fields.get("crystal_systems", [])
        if word in words.SYSTEMS:
            self._add("crystal_systems", words.SYSTEMS[word])
        elif bare in words.SYSTEMS:
            left = [one for one in now or words.ALL_SYSTEMS if one not in words.SYSTEMS[bare]]
            self.said.fields["crystal_systems"] = left
        elif word in words.POINT_SYMMETRIES:
            before = self.said.fields.get("point_symmetries", words.POINT_SYMMETRIES[word])
            self.said.fields["point_symmetries"] = [one for one in before if one in words.POINT_SYMMETRIES[word]]
        else:
            return False
        kind = "point symmetry" if word in words.POINT_SYMMETRIES else "crystal system"
        return self._took(n, f"{kind} {word.replace('non-', 'not ')}")

    def _kind(self) -> bool:
        """Oxide; halide; oxyfluoride; alkali metal."""
        if self._listed(0)[2]:
            return False  # oxide or fluoride
        two = f"{self._word()}-{self._word(1)}".lower()
        for n, word in ((2, words.singular(two)), (1, words.singular(self._word()))):
            if word in words.COMPOUNDS:
                own = words.COMPOUNDS[word]
                _join(self.said.must, own)
                return self._took(n, f"every crystal holds {' and '.join(own)}")
            if word in words.ONE_OF:
                return self._one_of(list(words.ONE_OF[word]), n)
        return False

    def _one_of(self, own: list[str], n: int) -> bool:
        if self.said.any_of and set(own) != set(self.said.any_of):
            taken = " ".join(self.tokens[self.at : self.at + n])
            self.said.not_understood.append(f"{taken} (a second choice of one among several elements)")
            self.at += n
            return True
        self.said.any_of = own
        return self._took(n, f"at least one of {', '.join(own)}")

    def _free_of(self) -> bool:
        """Lead-free; Pb-free."""
        word = self._word()
        own = words.named_elements(word[:-5]) if word.lower().endswith("-free") else ()
        _join(self.said.excluded, own)
        return bool(own) and self._took(1, f"no {', '.join(own)}")

    def _elements(self) -> bool:
        """Li-Mn-O: these alone; Li, Mn and O: these and maybe others; Cl or Br: at least one."""
        word, own = self._word(), self._symbols(0)
        if not own:
            return False
        if len(own) > 1 and re.search(r"[-–]", word) and words.named_elements(word):
            self.said.others = False
            _join(self.said.must, own)
            return self._took(1, f"chemical system {'-'.join(own)}: all of these elements and no others")
        found, end, either = self._listed(0)
        if either:
            return self._either(found, end)
        found, end, _ = self._listed(0, families=False)
        _join(self.said.must, found)
        return self._took(end, f"every crystal holds {', '.join(found)}")

    def _either(self, found: list[str], n: int) -> bool:
        """Cl or Br; phosphate or sulfate, which share O."""
        kinds = [set(one) for one in map(self._symbols, range(n)) if one]
        shared = [one for one in found if all(one in kind for kind in kinds)]
        _join(self.said.must, shared)
        return self._one_of([one for one in found if one not in shared], n)

    def _formula(self) -> bool:
        """LiFePO4; ABX3."""
        word = self._word()
        if words.formula_symbols(word):
            self._add("formulas", [word])
            return self._took(1, f"formula {word}")
        if _ANONYMOUS.fullmatch(word):
            self._add("anonymous_formulas", [word])
            return self._took(1, f"form {word}, letters for elements")
        return False

    def _split(self) -> bool:
        """A word with hyphens, none of whose readings was known, as its parts: Li-ion, Mn-oxide."""
        word = self._word()
        parts = [one for one in re.split(r"[-–/]", word) if one]
        if len(parts) < 2:
            return False
        self.tokens[self.at : self.at + 1] = parts
        return True
