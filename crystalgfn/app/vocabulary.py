"""The words that a prompt is read by: kinds of compounds, symmetries, goals, counts, and what means nothing."""

from __future__ import annotations

import re
from functools import cache

from crystalgfn.crystallography import elements
from crystalgfn.space.constraints.prototypes import prototype_names

HALOGENS, CHALCOGENS, PNICTOGENS = ("F", "Cl", "Br", "I"), ("S", "Se", "Te"), ("N", "P", "As", "Sb")
ONE_OF = {
    "halide": HALOGENS,
    "chalcogenide": CHALCOGENS,
    "pnictide": PNICTOGENS,
    "lanthanide": tuple("La Ce Pr Nd Sm Eu Gd Tb Dy Ho Er Tm Yb Lu".split()),
    "rare-earth": tuple("Sc Y La Ce Pr Nd Sm Eu Gd Tb Dy Ho Er Tm Yb Lu".split()),
    "alkali": ("Li", "Na", "K", "Rb", "Cs"),
    "alkaline-earth": ("Be", "Mg", "Ca", "Sr", "Ba"),
    "transition-metal": tuple("Sc Ti V Cr Mn Fe Co Ni Cu Zn Y Zr Nb Mo Ru Rh Pd Ag Cd Hf Ta W Re Ir Hg".split()),
}
"""Families: every crystal holds at least one of these elements; without those that no shipped sampler draws."""
_OF_ONE = (
    "oxide:O fluoride:F chloride:Cl bromide:Br iodide:I sulfide:S sulphide:S selenide:Se telluride:Te nitride:N "
    "phosphide:P arsenide:As antimonide:Sb carbide:C boride:B silicide:Si germanide:Ge hydride:H"
)
_OF_TWO = (
    "hydroxide:H,O phosphate:P,O sulfate:S,O sulphate:S,O silicate:Si,O borate:B,O carbonate:C,O nitrate:N,O "
    "titanate:Ti,O niobate:Nb,O tantalate:Ta,O vanadate:V,O tungstate:W,O molybdate:Mo,O chromate:Cr,O ferrite:Fe,O "
    "manganite:Mn,O aluminate:Al,O gallate:Ga,O germanate:Ge,O stannate:Sn,O zirconate:Zr,O arsenate:As,O "
    "oxyfluoride:O,F oxychloride:O,Cl oxysulfide:O,S oxynitride:O,N carbonitride:C,N borohydride:B,H"
)
COMPOUNDS = {
    name: tuple(symbols.split(","))
    for name, _, symbols in (one.partition(":") for one in f"{_OF_ONE} {_OF_TWO}".split())
}
"""Kinds of compounds: every crystal holds all of these elements."""
SYSTEMS = {
    **{name: (name,) for name in ("triclinic", "monoclinic", "orthorhombic", "tetragonal", "hexagonal", "cubic")},
    "trigonal": ("trigonal-rhombohedral", "trigonal-hexagonal"),
    "rhombohedral": ("trigonal-rhombohedral",),
}
ALL_SYSTEMS = (
    "triclinic", "monoclinic", "orthorhombic", "tetragonal", "trigonal-rhombohedral", "trigonal-hexagonal",
    "hexagonal", "cubic",
)  # fmt: skip
_LACKING = ("enantiomorphic-polar", "polar", "enantiomorphic", "non-centrosymmetric")
POINT_SYMMETRIES = {
    "centrosymmetric": ("centrosymmetric",),
    "non-centrosymmetric": _LACKING,
    "noncentrosymmetric": _LACKING,
    "acentric": _LACKING,
    "polar": ("polar", "enantiomorphic-polar"),
    "chiral": ("enantiomorphic", "enantiomorphic-polar"),
}
IONS = ("Na", "K", "Rb", "Cs", "Mg", "Ca", "Zn", "Al", "Cu", "Ag")
"""Elements whose ions may conduct, beside Li."""
N_ELEMENTS = {"elemental": 1, "unary": 1, "binary": 2, "ternary": 3, "quaternary": 4, "quinary": 5}
GOALS = {
    "stable": "stable",
    "stability": "stable",
    "synthesizable": "stable",
    "dense": "density",
    "conductor": "conductor",
    "conductors": "conductor",
    "electrolyte": "conductor",
    "superionic": "conductor",
}
PHRASES = {
    "solid electrolyte": "conductor",
    "solid state electrolyte": "conductor",
    "ionic conductor": "conductor",
    "ion conductor": "conductor",
    "high density": "density",
    "low formation energy": "formation-energy",
    "near the hull": "stable",
    "on the hull": "stable",
    "solar cell": "gap",
    "solar absorber": "gap",
}
"""Goals of several words; "gap" without a number is 1.34 eV, which suits a single-junction solar cell best."""
BEST_GAP = 1.34
FILLERS = frozenset(
    """a an the of and with containing contains contain having has have that which are is be for in on to from made me
    please find give show generate sample draw make want wanted looking look search new novel some any all crystal
    crystals material materials compound compounds structure structures phase phases candidate candidates inorganic
    solid
    system systems space based but also cell cells primitive unit element elements its their as well type metal metals
    ion ions ionic i we need us let called like suitable good family families sg""".split()
)
NUMBERS = {word: n for n, word in enumerate("one two three four five six seven eight nine ten".split(), 1)}
GROUP_WORDS = frozenset("sg space group groups no number symmetry".split())
COUNTED = frozenset("crystals candidates structures samples materials compounds".split())
ASKING = frozenset("find generate sample draw make show".split())
WORDS_TOO = frozenset({"As", "At", "Be", "He", "I", "In", "No"})
"""Symbols that are English words: at the start of a prompt they count as words."""
_SPELT = {"aluminium": "Al", "sulphur": "S", "caesium": "Cs"}


def number_in(word: str) -> int:
    """The whole number that a word says; 0 where it says none."""
    return NUMBERS.get(word, 0) or (int(word) if word.isdigit() and len(word) < 6 else 0)


@cache
def element_names() -> dict[str, str]:
    """English name, lower case -> symbol."""
    from pymatgen.core import Element

    return {Element(symbol).long_name.lower(): symbol for symbol in elements.SYMBOLS} | _SPELT


def named_elements(word: str) -> tuple[str, ...]:
    """The elements that a word names: a symbol, a name, symbols joined by "-" or "/"; none where it is no such word."""
    parts = re.split(r"[-–/]", word)
    found = [element_names().get(one.lower(), one) for one in parts]
    known = all(one in elements.NUMBER for one in found) and len(set(found)) == len(found)
    return tuple(found) if known else ()


def formula_symbols(word: str) -> tuple[str, ...]:
    """The elements of a formula such as LiFePO4 or Ca(OH)2; none where it is no formula of at least two elements."""
    if not re.fullmatch(r"(?:[A-Z][a-z]?\d{0,2}|[()]\d{0,2})+", word):
        return ()
    symbols = re.findall(r"[A-Z][a-z]?", word)
    known = all(one in elements.NUMBER for one in symbols)
    return tuple(dict.fromkeys(symbols)) if known and len(set(symbols)) > 1 and word.count("(") < 4 else ()


def singular(word: str) -> str:
    """Lower case, without the s of a plural."""
    word = word.lower()
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def is_prototype(name: str, marked: bool) -> bool:
    """Whether it is the name of a structure type; ``marked``: the prompt says so ("NaCl structure").

    Without that, words that name a compound ("lithium niobate") are the compound, and formulas are formulas.
    """
    parts = name.split()
    chemistry = all(singular(one) in COMPOUNDS or one.lower() in FILLERS or named_elements(one) for one in parts)
    if not marked and (chemistry or not re.fullmatch(r"[A-Za-z][a-z' -]{3,}", name)):
        return False
    return _plain(name) in _prototypes()


@cache
def _prototypes() -> frozenset[str]:
    return frozenset(map(_plain, prototype_names()))


def _plain(name: str) -> str:
    """As `crystalgfn.space.constraints.prototypes` compares names: without case, spaces and signs."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


_ATOMS = re.compile(
    r"(?:(at most|up to|no more than|fewer than|less than|at least|more than|between) )?"
    r"(\d+)(?:(?: ?(?:-|–|to|and) ?)(\d+))? atoms?\b"
)
MOST_ATOMS = 20
"""In a primitive cell, where a prompt names no limit."""


def atoms_in(text: str) -> tuple[int, int, int]:
    """Least and largest number of atoms that a text begins with, and its words; no words where it does not.

    Example:
        >>> atoms_in("at most 14 atoms in"), atoms_in("atoms")
        ((1, 14, 4), (0, 0, 0))
    """
    match = _ATOMS.match(text)
    if match is None:
        return 0, 0, 0
    first, last = int(match[2]), int(match[3] or match[2])
    below, above = (1, last), (first, max(first, MOST_ATOMS))
    limits = {"at most": below, "up to": below, "no more than": below, "at least": above}
    limits |= {"fewer than": (1, last - 1), "less than": (1, last - 1), "more than": (first + 1, above[1] + 1)}
    low, high = limits.get(match[1] or "", (first, last))
    return (low, high, match[0].count(" ") + 1) if 1 <= low <= high else (0, 0, 0)


def gap_in(text: str) -> tuple[float, int]:
    """The band gap, eV, that a text begins with, and its words; no words where it does not.

    Example:
        >>> gap_in("band gap near 1.5 ev"), gap_in("2 ev gap")
        ((1.5, 5), (2.0, 3))
    """
    number = r"(\d+(?:\.\d+)?) ?ev"
    match = re.match(rf"(?:band ?)?gaps? (?:(?:near|around|about|of|at|close to|approximately) )*{number}\b", text)
    match = match or re.match(rf"{number} (?:band ?)?gaps?\b", text)
    return (0.0, 0) if match is None else (float(match[1]), match[0].count(" ") + 1)
