"""Kind 10: a choice of a group that is not there is named, with those that are."""

import pytest

from crystalgfn.cli.options.commands import COMMANDS
from crystalgfn.cli.options.compose import OptionError, compose_config
from crystalgfn.cli.options.objects import space_arguments
from crystalgfn.errors import CrystalGFNError
from crystalgfn.space.space import CrystalSpace


def refused(command, *arguments) -> str:
    with pytest.raises(OptionError) as caught:
        compose_config(command, arguments)
    return str(caught.value)


@pytest.mark.parametrize("command", [name for name, one in COMMANDS.items() if "space" in one.groups])
@pytest.mark.parametrize("typed", ["space=x", "--space=publishd"])
def test_a_space_that_is_not_there_is_named(command, typed):
    name = typed.partition("=")[2]
    assert refused(command, typed) == f"There is no space {name!r}; there are default, published."


@pytest.mark.parametrize("command", ["evaluate", "predict"])
@pytest.mark.parametrize("typed", ["csp=x", "space=default"])
def test_a_group_of_other_commands_is_not_offered(command, typed):
    name = typed.partition("=")[0]
    assert f"There is no option '{name}'" in refused(command, typed)
    assert f"did you mean {name}?" not in refused(command, typed)


@pytest.mark.parametrize("option", ["formula", "chemsys", "elements"])
def test_the_home_folder_is_no_null(option):
    with pytest.raises(CrystalGFNError, match="~"):
        CrystalSpace(**space_arguments(compose_config("sample", [f"{option}=~"]).space))


def test_the_home_folder_is_a_file(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert compose_config("sample", ["templates=~"]).templates == "/home/me"


@pytest.mark.parametrize(
    ("task", "option", "owner"),
    [
        ("throughput", "csp.methods=[random]", "csp"),
        ("placement", "budget=5", "discovery"),
        ("csp", "placed=3", "placement"),
        ("modes", "systems=2", "discovery"),
    ],
)
def test_an_option_of_another_task_is_named(task, option, owner):
    name = option.partition("=")[0]
    with pytest.raises(OptionError, match=f"{name} is an option of task={owner}, and task={task} does not use it"):
        compose_config("benchmark", [f"task={task}", option])
    assert compose_config("benchmark", [f"task={owner}", option]).task == owner
