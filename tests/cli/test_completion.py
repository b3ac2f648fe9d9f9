"""Completion: what comes next, asked by the scripts of three shells."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crystalgfn.cli import app, completion
from crystalgfn.cli.options.commands import COMMANDS
from crystalgfn.cli.options.declared import SPACE

ROOT = Path(__file__).resolve().parents[2]


def test_commands_options_and_values(tmp_path):
    assert set(completion.next_words([])) == {*(one.replace("_", "-") for one in COMMANDS), *completion.TOP}
    assert completion.next_words(["sam"]) == ["sample"]
    assert {f"{one}=" for one in {**COMMANDS["sample"].options, **SPACE}} <= set(completion.next_words(["sample", ""]))
    assert completion.next_words(["sample", "formu"]) == ["formula=", "formulas="]
    assert completion.next_words(["sample", "formula=NaCl", "formu"]) == [
        "formulas="
    ]  # what is given is not offered again
    assert completion.next_words(["sample", "--n-c"]) == ["--n-candidates"]
    assert completion.next_words(["sample", "structures="]) == ["structures=true", "structures=false"]
    assert completion.next_words(["sample", "--formats", "p"]) == ["poscar"]
    assert completion.next_words(["sample", "formats=[cif,p"]) == ["formats=[cif,poscar"]
    assert completion.next_words(["sample", "adapt="]) == ["adapt=true", "adapt=false"]
    assert completion.next_words(["sample", "sampler=li"]) == ["sampler=li-conductor"]
    assert completion.next_words(["train", "reward=dens"]) == [
        "reward=dense", "reward=dense_stable", "reward=density"
    ]  # fmt: skip
    assert completion.next_words(["train", "resume"]) == ["resume="] and completion.next_words(
        ["train", "learning"]
    ) == ["learning_rate="]
    assert completion.next_words(["train-refiner", "wid"]) == ["width="]
    assert completion.next_words(["sample", "crystal_systems=[cubic,hex"]) == ["crystal_systems=[cubic,hexagonal"]
    assert completion.next_words(["sample", "elements=[Li,Mn"]) == ["elements=[Li,Mn"]
    assert completion.next_words(["sample", "calculator=sev"]) == ["calculator=sevennet"]
    (tmp_path / "known.csv").touch()
    (tmp_path / "cifs").mkdir()
    assert completion.next_words(["discover", f"reference={tmp_path}/"]) == [
        f"reference={tmp_path}/cifs/", f"reference={tmp_path}/known.csv"
    ]  # fmt: skip
    assert completion.next_words(["nothing", ""]) == completion.next_words(["sample", "n="]) == []


def test_it_loads_no_library(tmp_path):
    program = (
        "import sys; from crystalgfn.cli.app import main; main(sys.argv[1:]);"
        "print([one for one in ('torch', 'pandas', 'hydra', 'pymatgen') if one in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, completion.ASK, "sample", "space_groups=Fm-3"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["space_groups=Fm-3", "space_groups=Fm-3m", "space_groups=Fm-3c"]
    assert done.stderr.strip() == "[]"


def test_scripts_are_printed_and_others_refused(capsys):
    for shell in ("bash", "zsh", "fish"):
        assert app.main(["completion", shell]) == 0
        assert completion.ASK in capsys.readouterr().out
    assert app.main(["completion", "tcsh"]) == 2 and "completion bash" in capsys.readouterr().err
    assert app.main(["completion"]) == 2


@pytest.fixture
def shell_environment(tmp_path):
    """A PATH on which crystalgfn is this one."""
    program = tmp_path / "crystalgfn"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m crystalgfn.cli "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def asked(shell, text, environment):
    done = subprocess.run([shell, "-c", text], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=60)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("crystalgfn sam", ["sample"]),
        ("crystalgfn sample formul", ["formula=", "formulas="]),
        ("crystalgfn sample structures=", ["true", "false"]),  # readline keeps what stands before the =
        ("crystalgfn-sample sampler=li", ["li-conductor"]),
        ("crystalgfn train reward=dense_", ["dense_stable"]),
    ],
)
def test_bash(line, expected, shell_environment):
    text = f'source <(crystalgfn completion bash); compopt() {{ :; }}; COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; '
    text += "COMP_WORDBREAKS=$' \\t\\n\"\\'><=;|&(:'; _crystalgfn; printf '%s\\n' \"${COMPREPLY[@]}\""
    assert asked("bash", text, shell_environment) == expected


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish(shell_environment):
    text = "crystalgfn completion fish | source; complete -C 'crystalgfn sample formats=p'"
    assert asked("fish", text, shell_environment) == ["formats=poscar"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh(shell_environment):
    text = (
        "compdef() {}; compadd() { printf '%s\\n' \"${@:#-*}\" }; source <(crystalgfn completion zsh); "
        "words=(crystalgfn sample formul); CURRENT=3; _crystalgfn"
    )
    assert [one for one in asked("zsh", text, shell_environment) if one] == ["formula=", "formulas="]
