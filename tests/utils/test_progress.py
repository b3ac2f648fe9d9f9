"""Whatever shows progress hears of every finished item; a silent bar is silent."""

import sys

import pytest

from crystalgfn.utils.progress import Bar, check_progress, report, shown_by, track


class Recorder:
    def __init__(self):
        self.updates, self.rows = [], []

    def update(self, done, total, message):
        self.updates.append((done, total, message))

    def result(self, row):
        self.rows.append(row)


def test_a_recorder_hears_all():
    recorder = Recorder()
    check_progress(recorder)
    recorder.updates.clear()
    with shown_by(recorder):
        assert list(track("abc", "reading")) == ["a", "b", "c"]
        with Bar(total=10, initial=4, description="relaxing") as bar:
            bar.update(3)
            bar.note("0.1 eV/Å")
        report({"formula": "NaCl"})
    assert recorder.updates[:3] == [(1, 3, "reading"), (2, 3, "reading"), (3, 3, "reading")]
    assert recorder.updates[3:] == [(7, 10, "relaxing"), (7, 10, "relaxing: 0.1 eV/Å")]
    assert recorder.rows[-1] == {"formula": "NaCl"}


def test_a_terminal_sees_a_bar_and_a_silent_one_nothing(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(track([1, 2], "counting")) == [1, 2]
    assert "counting" in capsys.readouterr().err
    assert list(track([1, 2], "counting", shown=False)) == [1, 2]
    assert capsys.readouterr().err == ""
    report({"formula": "NaCl"})  # nobody listens


def test_what_shows_nothing_is_refused():
    with pytest.raises(TypeError, match="update"):
        check_progress(object())
