"""Work in parts and in processes, none of which outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crystalgfn.errors import NotAvailable
from crystalgfn.utils.parallel import cores, killed_with_parent, on_dask, parallel_map
from crystalgfn.utils.progress import shown_by

SLEEPERS = """
import os, sys, time
from crystalgfn.utils.interrupts import Terminations
from crystalgfn.utils.parallel import parallel_map

def work(path):
    open(f"{path}/{os.getpid()}", "w").close()
    time.sleep(100)

if __name__ == "__main__":
    with Terminations():
        list(parallel_map(work, [sys.argv[1]] * 4, n_jobs=2))
"""


def squares(part):
    return [(i * i, len(part), os.getpid()) for i in part]


def square(i):
    return i * i


def late(i):
    time.sleep(0.5 if i == 0 else 0.0)
    return i


def fails(i):
    if i == 3:
        raise ValueError("3")
    return i


class Updates:
    """Whatever shows progress: here, what it was told."""

    def __init__(self):
        self.seen = []

    def update(self, done, total, message):
        self.seen.append((done, total, message))

    def result(self, row):
        raise AssertionError("nothing is reported")


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
@pytest.mark.parametrize(("n", "batch"), [(0, 5), (1, 5), (20, 7), (20, 1000)])
def test_every_item_has_its_answer(n, batch, n_jobs):
    with shown_by(Updates()) as progress:
        found = list(parallel_map(squares, range(n), n_jobs=n_jobs, batch=batch, description="squaring"))
    assert [square for square, _, _ in found] == [i * i for i in range(n)]
    sizes = [length for _, length, _ in found]
    assert sizes == [min(batch, n - i // batch * batch) for i in range(n)]  # whatever n_jobs is
    assert progress.seen[-1:] == ([(n, n, "squaring")] if n else [])
    alone = n_jobs == 1 or n <= batch or (n_jobs == -1 and cores() == 1)
    assert {pid == os.getpid() for *_, pid in found} == ({alone} if n else set())


def test_ordered_or_as_they_are_done():
    assert list(parallel_map(late, range(4), n_jobs=2)) == [0, 1, 2, 3]
    found = list(parallel_map(late, iter(range(4)), n_jobs=2, ordered=False))
    assert sorted(found) == [0, 1, 2, 3] and found[0] != 0


def test_no_bar_unless_it_is_asked_for(capsys):
    assert list(parallel_map(square, [2])) == [4]
    assert capsys.readouterr().err == ""


def test_items_are_asked_for_as_they_are_needed():
    asked = []

    def items():
        for i in range(100):
            asked.append(i)
            yield i

    found = parallel_map(square, items(), n_jobs=2)
    assert next(found) == 0 and len(asked) <= 8
    found.close()


def test_an_error_of_the_work_is_its_own():
    for n_jobs in (1, 2):
        with pytest.raises(ValueError, match="3"):
            list(parallel_map(fails, range(6), n_jobs=n_jobs))
    assert list(parallel_map(square, range(3), n_jobs=2)) == [0, 1, 4]  # the workers are there again


def test_a_cluster_in_place_of_processes(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with on_dask("tcp://nowhere:1"), pytest.raises(NotAvailable, match="Dask"):
        list(parallel_map(square, range(3), n_jobs=2))
    assert list(parallel_map(square, range(3))) == [0, 1, 4]


def gone(pids, seconds=20.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end and (left := [pid for pid in pids if alive(pid)]):
        time.sleep(0.1)
    return not left


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and /dev/shm")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_parent(tmp_path, number):
    (tmp_path / "sleepers.py").write_text(SLEEPERS)
    (tmp_path / "pids").mkdir()
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "sleepers.py"), str(tmp_path / "pids")], stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 60
    while len(list((tmp_path / "pids").iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    workers = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    assert len(workers) == 2 and all(map(alive, workers))
    children = [int(p) for p in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
    parent.send_signal(number)
    assert parent.wait(20) != 0
    assert gone({*workers, *children})
    left = [p.name for p in Path("/dev/shm").iterdir() if f"loky-{parent.pid}-" in p.name]
    assert not left


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_a_program_ends_with_who_started_it(tmp_path):
    code = (
        "import subprocess, time; from crystalgfn.utils.parallel import killed_with_parent\n"
        "p = subprocess.Popen(['sleep', '100'], start_new_session=True, preexec_fn=killed_with_parent())\n"
        "print(p.pid, flush=True); time.sleep(100)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    program = int(parent.stdout.readline())
    assert alive(program) and killed_with_parent() is not None
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone([program])


@pytest.mark.parametrize(("given", "expected"), [(None, "passive"), ("active", "active")])
def test_threads_sleep_while_they_wait_unless_told_otherwise(given, expected):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    code = "import sys, os, crystalgfn; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "False"]  # set before torch reads it
