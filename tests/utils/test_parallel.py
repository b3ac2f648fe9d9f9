"""Work in parts and in processes."""

import os

import pytest

from crystalgfn.utils.parallel import FEW, in_parts


def squares(part):
    return [(i * i, len(part), os.getpid()) for i in part]


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
@pytest.mark.parametrize(("n", "size"), [(0, 5), (1, 5), (3 * FEW, 7), (3 * FEW, 1000)])
def test_every_item_has_its_answer(n, size, n_jobs, capsys):
    found = in_parts(squares, range(n), size, n_jobs, "squaring")
    assert [square for square, _, _ in found] == [i * i for i in range(n)]
    assert all(length <= size for _, length, _ in found)
    assert "squaring" in capsys.readouterr().err
    alone = n_jobs == 1 or n < 2 * FEW or len(os.sched_getaffinity(0)) == 1
    assert {pid == os.getpid() for *_, pid in found} == ({alone} if n else set())


def test_no_bar_unless_it_is_asked_for(capsys):
    in_parts(squares, range(4), 2)
    assert capsys.readouterr().err == ""
