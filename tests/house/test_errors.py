"""Commands of modules: what a user can act on is one sentence and an exit status."""

from pathlib import Path

import pytest
from forks import as_command

from crystalgfn.errors import DataError
from scripts.maintain.program import run

ROOT = Path(__file__).resolve().parents[2]


def failing(error: BaseException):
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (DataError("row 3\nhas no cell;  give it one"), 2, "error: row 3 has no cell; give it one"),
        (
            DataError("2 rows\n  row 3: no cell\n  row 5: none\nmend them"),
            2,
            "error: 2 rows; row 3: no cell; row 5: none; mend",
        ),
        (DataError("a table\n  row 3: no cell"), 2, "error: a table; row 3: no cell"),
        (FileNotFoundError(2, "No such file", "a.parquet"), 2, "error: cannot use a.parquet: No such file; choose"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_a_user_can_act_on_is_one_sentence(error, status, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(failing(error))
    said = capsys.readouterr().err
    assert stopped.value.code == status
    assert said.startswith(words) and said.count("\n") == 1


def test_what_is_wrong_with_the_program_itself_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run(failing(ZeroDivisionError("division by zero")))


def test_a_command_of_a_module_names_the_file_that_is_missing(forks, tmp_path):
    process = forks.start(as_command("scripts.maintain.report_matbench"), tmp_path / "none.parquet")
    _, err = process.communicate(timeout=100)
    assert process.returncode == 2
    assert "Traceback" not in err and "none.parquet" in err.splitlines()[-1]


def test_every_module_that_is_a_command_answers_so():
    for folder in ("crystalgfn", "proxies"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if '__name__ == "__main__"' in text:
                assert "    run(main)" in text, path
