"""What people type: paths, formulas, symbols, lists and numbers mean what they say, or one sentence says why not."""

import os
import shutil
from pathlib import Path

import pytest

from crystalgfn.cli import app
from crystalgfn.cli.options.commands import COMMANDS
from crystalgfn.cli.options.compose import OptionError, compose_config
from crystalgfn.cli.options.declared import CSP, SPACE
from crystalgfn.cli.options.kinds import Unfit
from crystalgfn.cli.options.objects import build_part, plain_config, space_arguments

CIF = """data_salt
_symmetry_space_group_name_H-M 'F m -3 m'
_cell_length_a {a}
_cell_length_b {a}
_cell_length_c {a}
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na Na 0 0 0
Cl Cl 0.5 0.5 0.5
"""
ODD_NAMES = [
    "kriställe",
    "a=b",
    "with space",
    "[x]",
    "it's",
    "a,b",
    "50%",
    "#1",
    "{y}",
    "(z)",
    "1e3",
    "No",
    "a:b",
    "~c",
]


def space(*arguments, command="sample"):
    return space_arguments(compose_config(command, arguments).get("space"))


def refused(command, *arguments) -> str:
    with pytest.raises(OptionError) as caught:
        compose_config(command, arguments)
    return str(caught.value)


# ---- paths (case 21) and lists of files (case 20) -------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("form", ["{0}={1}", "--{0}={1}"])
def test_a_path_is_what_was_typed(name, form, tmp_path):
    config = compose_config("evaluate", [form.format("samples", tmp_path / name), form.format("out", name)])
    assert plain_config(config.samples) == str(tmp_path / name) and config.out == name
    assert compose_config("train", ["--out", name]).out == name


def test_the_home_folder_is_written_as_in_a_shell(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert compose_config("evaluate", ["samples=~/cifs"]).samples == "/home/me/cifs"


def test_a_file_whose_name_is_a_list_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[a,b]").write_text("")
    assert plain_config(compose_config("evaluate", ["samples=[a,b]"]).samples) == "[a,b]"
    assert plain_config(compose_config("evaluate", ["samples=[a,c]"]).samples) == ["a", "c"]


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("[a.cif,b.cif]", ["a.cif", "b.cif"]),
        ("[a b.cif, ü.cif]", ["a b.cif", "ü.cif"]),
        ("['a,b.cif',c=d.cif]", ["a,b.cif", "c=d.cif"]),
        ("a.cif", "a.cif"),
    ],
)
def test_a_list_of_files_wherever_a_file_may_stand(text, files):
    for command, option in (
        ("evaluate", "samples"), ("evaluate", "reference"), ("train", "real"), ("sample", "templates"),
        ("train_proxy", "train"), ("train_refiner", "train"), ("benchmark", "csp.templates"),
    ):  # fmt: skip
        task = ["task=csp"] if command == "benchmark" else []
        config = plain_config(compose_config(command, [*task, f"{option}={text}"]))
        for part in option.split("."):
            config = config[part]
        assert config == files, option


def test_list_of_samples_is_judged_from_folders_with_odd_names(tmp_path, monkeypatch, capsys):
    """Cases 20 and 21 from end to end."""
    monkeypatch.chdir(tmp_path)
    for name, edge in (("kriställe", 5.64), ("a=b", 5.7)):
        Path(name).mkdir()
        Path(name, "salt.cif").write_text(CIF.format(a=edge))
    shutil.copy("kriställe/salt.cif", "c [1].cif")
    arguments = ["report=false", "progress=false", "symprecs=0.1"]
    assert app.evaluate(["samples=[kriställe,a=b,c [1].cif]", *arguments, "out=ausgabe ü"]) == 0
    import json

    record = json.loads(Path("ausgabe ü", "run.json").read_text(encoding="utf-8"))
    assert record["counts"] == {"given": 3, "judged": 3, "skipped": 0}
    assert app.evaluate(["samples=kriställe", *arguments, "out=one"]) == 0


# ---- formulas (case 22), elements, space groups ----------------------------------------------------------------------


@pytest.mark.parametrize("formula", ["InF", "NaN", "Ca(OH)2", "NO", "No2O3", "YES", "LiFePO4", "Na3N", "INF", "Tl"])
@pytest.mark.parametrize("command", ["sample", "train", "check"])
def test_a_formula_is_no_number_and_no_switch(formula, command):
    assert space(f"formula={formula}", command=command)["formula"] == formula


def test_indium_fluoride_is_drawn(tmp_path):
    import pandas as pd

    from crystalgfn import CrystalSpace, PolicyConfig, Sampler

    wide = CrystalSpace(elements=["In", "F"], space_groups=[221, 225], n_atoms=(1, 4), oxidation_states="all")
    Sampler.untrained(wide, policy=PolicyConfig(width=16, blocks=1, components=2)).save(tmp_path / "sampler")
    common = ["n=2", "structures=false", "picture=false", "diagnostics=0", f"out={tmp_path / 'out'}"]
    assert app.sample([f"sampler={tmp_path / 'sampler'}", "formula=InF", *common]) == 0
    assert set(pd.read_parquet(tmp_path / "out" / "table.parquet")["formula"]) <= {"InF", "In2F2", "FIn", "F2In2"}


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("[Li,Mn,O]", ["Li", "Mn", "O"]),
        ("Li,Mn,O", ["Li", "Mn", "O"]),
        ("Li-Mn-O", ["Li", "Mn", "O"]),
        ("[No, Y, N]", ["No", "Y", "N"]),
        ("No", ["No"]),
        ('["In","F"]', ["In", "F"]),
        ("[]", []),
    ],
)
def test_elements_with_and_without_brackets(text, symbols):
    assert space(f"elements={text}")["elements"] == symbols
    assert space(f"excluded_elements={text}")["excluded_elements"] == symbols


@pytest.mark.parametrize("text", ["Li-Mn-O", "[Li,Mn,O]", "Li,Mn,O"])
def test_a_chemical_system_is_its_elements_and_all_of_them(text):
    from crystalgfn.space.space import CrystalSpace

    assert space(f"chemsys={text}") == {"chemsys": "Li-Mn-O"}
    assert CrystalSpace(**space(f"chemsys={text}")).chemsys == "Li-Mn-O"


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("[Fm-3m,225]", ["Fm-3m", 225]),
        ("Fm-3m", ["Fm-3m"]),
        ("225", [225]),
        ("225,227", [225, 227]),
        ("[P2_1/c,R-3m]", ["P2_1/c", "R-3m"]),
    ],
)
def test_space_groups_by_symbol_and_number(text, groups):
    assert space(f"space_groups={text}")["space_groups"] == groups


# ---- forms of options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["n=7", "n_jobs=1", "relax=true"],
        ["--n=7", "--n-jobs=1", "--relax"],
        ["--n", "7", "--n_jobs", "1", "--relax", "true"],
        ["--relax", "n=7", "--n-jobs", "1"],
    ],
)
def test_three_ways_to_say_the_same(words):
    config = compose_config("sample", words)
    assert (config.n, config.n_jobs, config.relax) == (7, 1, True)


def test_a_value_that_looks_like_a_switch_follows_its_name():
    assert compose_config("sample", ["--seed", "3", "--sampler", "my/sampler"]).sampler == "my/sampler"
    assert compose_config("check", ["--n_sigma", "0.5"]).n_sigma == 0.5
    assert "needs a value" in refused("sample", "--n")
    assert "needs a value" in refused("sample", "--n", "--relax")


# ---- values that mean nothing (case 35) ------------------------------------------------------------------------------


def test_one_number_is_a_list_of_one():
    config = compose_config("evaluate", ["symprecs=0.1"])
    assert plain_config(config.symprecs) == [0.1]
    assert plain_config(compose_config("benchmark", ["threads=2", "devices=cpu"]).threads) == [2]
    assert plain_config(compose_config("sample", ["formats=cif"]).formats) == ["cif"]


@pytest.mark.parametrize(
    ("command", "text", "words"),
    [
        ("sample", "alloys=xyz", "true or false"),
        ("sample", "alloys=1", "true or false"),
        ("evaluate", "symprecs=small", "numbers above 0"),
        ("evaluate", "symprecs=[0.1,-1]", "numbers above 0"),
        ("evaluate", "symprecs=[]", "numbers above 0"),
        ("evaluate", "ltol=nan", "a number above 0"),
        ("evaluate", "max_force=inf", "a number above 0"),
        ("sample", "n=1.5", "a whole number of at least 1"),
        ("sample", "n=true", "a whole number"),
        ("sample", "n=", "a whole number"),
        ("sample", "shard=1", "[i,k]"),
        ("sample", "formats=[cif,doc]", "some of cif, poscar, extxyz"),
        ("sample", "lengths=[1,2,3]", "two numbers"),
        ("sample", "n_jobs=0", "-1"),
        ("sample", "out=", "a path"),
        ("benchmark", "task=[csp]", "one of throughput"),
        ("train", "strata={a: 1}", "shares such as"),
        ("train", "trainer.steps=1.5", "a whole number, or null"),
        ("train", "trainer.steps=true", "a whole number, or null"),
        ("train", "objective.huber=big", "a number, or null"),
        ("train_proxy", "settings.lr=fast", "a number"),
        ("benchmark", "csp.outside=[a,b]", "{name: folder}"),
    ],
)
def test_what_means_nothing_is_refused_with_what_to_give(command, text, words):
    said = refused(command, text)
    assert said.startswith(f"{text.partition('=')[0]}=") and "give " in said and words in said, said


def test_a_file_of_the_users_is_checked_as_what_was_typed_is(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: many\n")
    with pytest.raises(OptionError, match="seed=many: give a whole number from 0"):
        compose_config("train", ["experiment=mine"], tmp_path)


@pytest.mark.parametrize("text", ["=3", "n", "-n=3", "3", "n n=3", "", "--", "--=3", "\udcff=1"])
def test_what_is_no_option_is_a_sentence(text):
    assert refused("sample", text)


def test_every_default_is_of_its_own_kind():
    every = [*SPACE.items(), *CSP.items(), *(one for command in COMMANDS.values() for one in command.options.items())]
    assert len(every) > 120
    for name, option in every:
        if option.default is not None or "null" in option.kind.words:
            assert option.kind.check(option.default) == option.default, name


def test_nonsense_is_refused_or_read_by_every_option_and_never_a_traceback():
    texts = [
        "",
        "nan",
        "-inf",
        "1e400",
        "[",
        "]",
        "[[",
        "{",
        "{a",
        "'",
        '"',
        "[a,[b]",
        "null",
        "~",
        "٣",
        "\x00",
        "9" * 400,
    ]
    for name, command in COMMANDS.items():
        for key in [*command.options, *(SPACE if command.space else ())]:
            for text in texts:
                option = command.options.get(key) or SPACE[key]
                try:
                    value = option.kind.read(text)
                except Unfit:
                    continue
                assert option.kind.check(value) == value, (name, key, text)


def test_a_configuration_is_kept_and_read_back(tmp_path, capsys):
    """What a run writes down is what a resumed run reads, whatever the texts look like."""
    from crystalgfn.utils.run_folder import CONFIG, write_settings

    config = compose_config("train", ["formula=NaN", f"out={tmp_path}", "elements=No,N,Na", "init=1e3"])
    config.out = str(tmp_path)
    write_settings(tmp_path / CONFIG, plain_config(config))
    again = compose_config("train", ["resume=true", f"out={tmp_path}", "steps=7"])
    assert (again.space.formula, again.init, again.trainer.steps) == ("NaN", "1e3", 7)
    assert plain_config(again.space.elements) == ["No", "N", "Na"]
    for content in (b"\xff\xfe\x00", b"space: [", b"- a", b"", b"seed: 3"):
        (tmp_path / CONFIG).write_bytes(content)
        assert app.train(["resume=true", f"out={tmp_path}"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "config.yaml is damaged" in line, content
    assert os.listdir(tmp_path) == [CONFIG]


@pytest.mark.parametrize(
    ("command", "given"),
    [
        ("train", "reward=-inf"), ("train", "experiment=True"), ("sample", "space=nan"), ("check", "~space=[4,4]"),
        ("benchmark", "+csp=[1,2]"), ("train_proxy", "+space=1"),
    ],
)  # fmt: skip
def test_a_group_is_chosen_by_name(command: str, given: str) -> None:
    group = given.strip("+~").partition("=")[0]
    with pytest.raises(OptionError, match=f"{group} is chosen by name: "):
        compose_config(command, [given])


def test_a_part_that_is_no_part_is_a_sentence() -> None:
    with pytest.raises(OptionError, match="trainer: the configuration has no _target_"):
        build_part(compose_config("check", ["++trainer=true"]).trainer, "trainer")


# ---- further instances: numbers of other notations, lists within lists, and options that "+" would make --------------


@pytest.mark.parametrize("text", ["1_0", "١", "1e400", "nan", "0x10", "1,000", "+", "1 0"])
@pytest.mark.parametrize("option", ["limit", "steps", "n_jobs"])
def test_numbers_of_other_notations_are_refused(option, text):
    assert f"{option}={text}" in refused("evaluate", f"{option}={text}")


@pytest.mark.parametrize("text", ["[[a.cif]]", "[a.cif,[b.cif]]", "[]", "[a.cif,]"])
@pytest.mark.parametrize("option", ["samples", "reference"])
def test_lists_of_lists_of_files_are_refused(option, text):
    assert "give a name or a path, or a list of them" in refused("evaluate", f"{option}={text}")


@pytest.mark.parametrize(
    ("command", "given"), [("evaluate", "+x=1"), ("sample", "++wrong=2"), ("train", "+steps_=3"), ("check", "+x.y=1")]
)
def test_a_sign_makes_no_option(command, given):
    assert "There is no option" in refused(command, given)
