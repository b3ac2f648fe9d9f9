"""What a page asks for, checked: the forms of its four tabs, and what a prompt fills in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from crystalgfn.app.vocabulary import ALL_SYSTEMS, BEST_GAP
from crystalgfn.crystallography import elements, space_groups
from crystalgfn.errors import CrystalGFNError, InvalidSpace
from crystalgfn.rewards import registry
from crystalgfn.space.constraints.prototypes import prototypes_of

SAMPLERS = {
    "stable": "stable",
    "gap": "band-gap-1.34",
    "conductor": "li-conductor",
    "density": "density",
    "formation-energy": "formation-energy",
}
"""Goal -> the shipped sampler for it."""
POINT_SYMMETRIES = ("centrosymmetric", "enantiomorphic-polar", "polar", "enantiomorphic", "non-centrosymmetric")
FORMULA = r"^(?:[A-Z][a-z]?|[0-9().])+$"
UPLOADS = (".cif", ".mcif", ".vasp", ".poscar", ".xyz", ".extxyz", ".json", ".csv", ".parquet")
"""Endings of the files that may be evaluated."""
MOST_FILES, MOST_BYTES = 200, 32 * 2**20

Symbol = Annotated[str, Field(max_length=2)]
Formula = Annotated[str, Field(pattern=FORMULA, max_length=60)]
Count = Annotated[int, Field(ge=1, le=80)]


class RequestError(CrystalGFNError, ValueError):
    """A request of a page that cannot be met."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SpaceForm(_Strict):
    """What crystals may be: the part of the form that becomes arguments of `crystalgfn.CrystalSpace`."""

    must: list[Symbol] = Field(default=[], max_length=20)
    may: list[Symbol] = Field(default=[], max_length=118)
    excluded: list[Symbol] = Field(default=[], max_length=118)
    others: bool = True
    any_of: list[Symbol] = Field(default=[], max_length=118)
    formulas: list[Formula] = Field(default=[], max_length=20)
    anonymous_formulas: list[Formula] = Field(default=[], max_length=20)
    prototypes: list[Annotated[str, Field(max_length=60)]] = Field(default=[], max_length=20)
    space_groups: list[int | Annotated[str, Field(max_length=20)]] = Field(default=[], max_length=230)
    crystal_systems: list[str] = Field(default=[], max_length=8)
    point_symmetries: list[str] = Field(default=[], max_length=5)
    n_elements: tuple[Count, Count] | None = None
    n_atoms: tuple[Count, Count] | None = None

    @field_validator("must", "may", "excluded", "any_of")
    @classmethod
    def _symbols(cls, value: list[str]) -> list[str]:
        for one in value:
            if one not in elements.NUMBER:
                raise ValueError(f"there is no element {one!r}")
        return list(dict.fromkeys(value))

    @field_validator("space_groups")
    @classmethod
    def _groups(cls, value: list[int | str]) -> list[int]:
        return sorted({space_groups.number_of(str(one)) for one in value})

    @field_validator("crystal_systems", "point_symmetries")
    @classmethod
    def _names(cls, value: list[str]) -> list[str]:
        for one in value:
            if one not in (*ALL_SYSTEMS, "trigonal", *POINT_SYMMETRIES):
                raise ValueError(f"there is no crystal system or point symmetry {one!r}")
        return value

    @field_validator("prototypes")
    @classmethod
    def _prototypes(cls, value: list[str]) -> list[str]:
        for one in value:
            try:
                prototypes_of(one)
            except InvalidSpace as error:
                raise ValueError(str(error)) from error
        return value

    @field_validator("n_elements", "n_atoms")
    @classmethod
    def _ordered(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError(f"the least, {value[0]}, is above the most, {value[1]}")
        return value

    def arguments(self) -> dict[str, Any]:
        """Of CrystalSpace, those that say something."""
        same = ("any_of", "anonymous_formulas", "prototypes", "space_groups", "crystal_systems", "point_symmetries")
        found: dict[str, Any] = {name: getattr(self, name) for name in (*same, "n_elements", "n_atoms")}
        found |= {"formula": self.formulas[0]} if len(self.formulas) == 1 else {"formulas": self.formulas}
        found |= self._elements()
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items() if value}

    def _elements(self) -> dict[str, Any]:
        """Which elements there may be: a chemical system, a list, or all but some."""
        named = [one for one in dict.fromkeys((*self.must, *self.may, *self.any_of)) if one not in self.excluded]
        if self.others or not named:
            return {"required_elements": self.must, "excluded_elements": self.excluded}
        if set(named) == set(self.must):
            return {"chemsys": "-".join(self.must)}
        return {"elements": named, "required_elements": self.must}


class GoalForm(_Strict):
    """What is wanted of crystals, and what it may cost.

    Attributes:
        goal: one of `SAMPLERS`, or "reward:<name>" of an installed package.
        gap: eV, with the goal "gap".
        seconds: of training a sampler, where none is shipped for the goal.
    """

    goal: str = Field(default="stable", max_length=80)
    gap: float = Field(default=BEST_GAP, ge=0.1, le=10)
    seconds: int = Field(default=120, ge=5, le=86_400)

    @field_validator("goal")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in SAMPLERS and value.removeprefix("reward:") not in registry.installed():
            raise ValueError(f"there is no goal {value!r}")
        return value

    def training(self, space: list[str], folder: str, seed: int) -> list[str] | None:
        """The command that trains a sampler for the goal; None where one is shipped."""
        if self.goal in SAMPLERS and (self.goal != "gap" or abs(self.gap - BEST_GAP) < 1e-9):
            return None
        if self.goal == "gap":
            reward = ["reward=band_gap_stable", f"reward.gap.value={self.gap:g}"]
        else:
            reward = [f"reward={self.goal.removeprefix('reward:')}"]
        return ["train", *reward, *space, f"seconds={self.seconds}", f"seed={seed}", "diagnostics=0", f"out={folder}"]


class SampleForm(_Strict):
    """Generate: draw crystals and place their atoms; ``adapt``: fine-tune where the sampler is weak in the space."""

    kind: Literal["sample"]
    space: SpaceForm = SpaceForm()
    goal: GoalForm = GoalForm()
    n: int = Field(default=50, ge=1, le=5000)
    adapt: bool = False
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class DiscoverForm(_Strict):
    """Discover: relax the most promising with a calculator, learn, again."""

    kind: Literal["discover"]
    space: SpaceForm = SpaceForm()
    goal: GoalForm = GoalForm()
    budget: int = Field(default=30, ge=1, le=2000)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)


class PredictForm(_Strict):
    """Predict: polymorphs of a formula."""

    kind: Literal["predict"]
    formula: Formula
    space_group: int | Annotated[str, Field(max_length=20)] | None = None
    n: int = Field(default=20, ge=1, le=200)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)

    @field_validator("space_group")
    @classmethod
    def _group(cls, value: int | str | None) -> int | None:
        return None if value in (None, "") else space_groups.number_of(str(value))


class Upload(_Strict):
    """A file: its name, of which the ending counts, and its content in base64."""

    name: str = Field(max_length=255)
    content: str = Field(max_length=2 * MOST_BYTES)


class EvaluateForm(_Strict):
    """Evaluate: judge crystals from files; ``compare``: with the known phases, which takes minutes."""

    kind: Literal["evaluate"]
    compare: bool = False
    files: list[Upload] = Field(min_length=1, max_length=MOST_FILES)


class AnyForm(_Strict):
    """Any of the forms."""

    request: Annotated[SampleForm | DiscoverForm | PredictForm | EvaluateForm, Field(discriminator="kind")]


def first_fault(error: Exception) -> str:
    """The first fault of a form as a sentence."""
    if not isinstance(error, ValidationError):
        return "the request cannot be read"
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(one) for one in fault["loc"][2:]) or "the request"
    words = fault["msg"].removeprefix("Value error, ")
    more = error.error_count() - 1
    return f"{where.replace('_', ' ')}: {words[:1].lower()}{words[1:]}" + (f" (and {more} more)" if more else "")


@dataclass(kw_only=True)
class Prompt:
    """What a prompt says.

    Attributes:
        must: symbols that every crystal holds.
        may: symbols that may occur.
        excluded: symbols that may not.
        others: whether elements that are not named may occur.
        any_of: every crystal holds at least one of these.
        fields: further fields of a form by name: formulas, anonymous_formulas, prototypes, space_groups,
            crystal_systems, point_symmetries, n_elements, n_atoms, goal, gap, n.
        understood: words, and what they were taken for.
        not_understood: words that mean nothing here, or that cannot be held beside others.
    """

    must: list[str] = field(default_factory=list)
    may: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    others: bool = True
    any_of: list[str] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    understood: list[tuple[str, str]] = field(default_factory=list)
    not_understood: list[str] = field(default_factory=list)

    def form(self) -> dict[str, Any]:
        """The fields of a form, those that the prompt says something of."""
        found = {"must": self.must, "may": self.may, "excluded": self.excluded, "any_of": self.any_of}
        named = {name: value for name, value in found.items() if value}
        return {**named, "others": self.others, **self.fields}
