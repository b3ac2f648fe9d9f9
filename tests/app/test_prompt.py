"""What prompts in words are read as, exactly, and what is said not to be understood."""

import pytest

pytest.importorskip("pydantic")

from crystalgfn.app.forms import SpaceForm
from crystalgfn.app.prompt import read_prompt
from crystalgfn.space.space import CrystalSpace

LACKING = ["enantiomorphic-polar", "polar", "enantiomorphic", "non-centrosymmetric"]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (
            "cubic Li-Mn-O oxide, stable",
            {"must": ["Li", "Mn", "O"], "others": False, "crystal_systems": ["cubic"], "goal": "stable"},
        ),
        ("LiFePO4", {"others": True, "formulas": ["LiFePO4"]}),
        (
            "Find 50 lead-free ABX3 halide perovskites with a band gap near 1.5 eV",
            {
                "others": True, "excluded": ["Pb"], "any_of": ["F", "Cl", "Br", "I"], "anonymous_formulas": ["ABX3"],
                "prototypes": ["perovskite"], "goal": "gap", "gap": 1.5, "n": 50,
            },
        ),
        ("Mg, Al and O; at most 14 atoms", {"others": True, "must": ["Mg", "Al", "O"], "n_atoms": [1, 14]}),
        ("lithium manganese oxide", {"others": True, "must": ["Li", "Mn", "O"]}),
        ("Na and Cl only", {"others": False, "must": ["Na", "Cl"]}),
        ("oxides without Pb, Cd or Hg", {"others": True, "must": ["O"], "excluded": ["Pb", "Cd", "Hg"]}),
        ("Na or K cobalt oxides", {"others": True, "must": ["Co", "O"], "any_of": ["Na", "K"]}),
        ("phosphate or sulfate of Fe", {"others": True, "must": ["O", "Fe"], "any_of": ["P", "S"]}),
        ("may contain Na or K", {"others": False, "may": ["Na", "K"]}),
        ("Li2MnO3 C2/m", {"others": True, "formulas": ["Li2MnO3"], "space_groups": [12]}),
        ("space groups 225 and Fd-3m", {"others": True, "space_groups": [225, 227]}),
        ("P-1 Cu oxide", {"others": True, "must": ["Cu", "O"], "space_groups": [2]}),
        ("NaCl structure nitride", {"others": True, "must": ["N"], "prototypes": ["NaCl"]}),
        ("rock salt MgO", {"others": True, "prototypes": ["rock salt"], "formulas": ["MgO"]}),
        ("lithium niobate", {"others": True, "must": ["Li", "Nb", "O"]}),
        ("lithium niobate structure", {"others": True, "prototypes": ["lithium niobate"]}),
        ("solid electrolyte without Ge", {"others": True, "must": ["Li"], "excluded": ["Ge"], "goal": "conductor"}),
        ("quaternary, 10-20 atoms", {"others": True, "n_elements": [4, 4], "n_atoms": [10, 20]}),
        ("non-centrosymmetric", {"others": True, "point_symmetries": LACKING}),
        ("polar and chiral", {"others": True, "point_symmetries": ["enantiomorphic-polar"]}),
        (
            "trigonal or cubic",
            {"others": True, "crystal_systems": ["trigonal-rhombohedral", "trigonal-hexagonal", "cubic"]},
        ),
        ("In and As", {"others": True, "must": ["In", "As"]}),
        ("In a crystal with Fe", {"others": True, "must": ["Fe"]}),
        ("", {"others": True}),
    ],
)  # fmt: skip
def test_prompts(text, form):
    said = read_prompt(text)
    assert said.form() == form
    assert said.not_understood == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shiny blue Li-O", ["shiny", "blue"]),
        ("garnet", ["garnet"]),
        ("without phosphates", ["without phosphates"]),
        ("halide or nitride with an alkali metal", ["alkali (a second choice of one among several elements)"]),
        ("sodium conductor", ["a conductor of Na ions (only those of Li can be asked for)"]),
        ("gap of 2 eV, dense", ["goal density beside gap"]),
        ("Pb-free Pb oxide", ["Pb both asked for and excluded"]),
        ("<script>alert(1)</script>", ["script", "alert(1)", "script"]),
    ],
)
def test_what_is_not_understood_is_said(text, words):
    assert read_prompt(text).not_understood == words


def test_every_word_is_either_understood_or_said_not_to_be():
    said = read_prompt("cubic Li-Mn-O oxide, stable, shiny")
    assert [words for words, _ in said.understood] == ["cubic", "Li-Mn-O", "oxide", "stable"]


def test_a_long_prompt_is_cut_and_that_is_said():
    assert read_prompt("Li " * 400).not_understood == ["what comes after 500 letters"]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("cubic Li-Mn-O", {"chemsys": "Li-Mn-O", "crystal_systems": ["cubic"]}),
        ("Li and O, optionally Mn, only", {"elements": ["Li", "O", "Mn"], "required_elements": ["Li", "O"]}),
        ("oxide without Pb", {"required_elements": ["O"], "excluded_elements": ["Pb"]}),
        ("spinel LiMn2O4", {"formula": "LiMn2O4", "prototypes": ["spinel"]}),
        ("CsSnI3 or CsGeI3", {"formulas": ["CsSnI3", "CsGeI3"]}),
        ("binary sulfide, up to 8 atoms", {"required_elements": ["S"], "n_elements": [2, 2], "n_atoms": [1, 8]}),
    ],
)
def test_a_prompt_is_a_space(text, arguments):
    form = {name: value for name, value in read_prompt(text).form().items() if name in SpaceForm.model_fields}
    assert SpaceForm(**form).arguments() == arguments
    assert CrystalSpace(**arguments)
