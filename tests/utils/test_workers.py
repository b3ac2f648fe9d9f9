"""Work on a Dask cluster of which a worker is killed half-way: all results there, none twice."""

import json
import os
import signal
import threading
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pymatgen.core import Element, Lattice, Structure

from crystalgfn.cli import app
from crystalgfn.crystallography.atoms import CELL
from crystalgfn.errors import TrainingError
from crystalgfn.utils.parallel import parallel_map

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("default")  # of Dask's own threads and sockets when a worker dies

FCC = 0.5 * (1 - np.eye(3))
PROTOTYPES = {"rock salt": (FCC, 0.5, 2.0), "zinc blende": (FCC, 0.25, 2.3), "caesium chloride": (np.eye(3), 0.5, 1.15)}
"""Primitive basis, place of the second atom along the diagonal, edge over the sum of the radii."""


def slow_square(x: int) -> int:
    time.sleep(0.1)
    return x * x


def deadly(x: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return x


@pytest.fixture
def cluster():
    """Two worker processes on this machine; a killed one is replaced."""
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


def kill_one(cluster) -> int:
    """The process of a worker, killed as the system does where memory runs out."""
    pid = cluster.workers[0].pid
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_worker_killed_half_way_costs_nothing_but_time(cluster):
    found = []
    for result in parallel_map(slow_square, range(40), ordered=False, scheduler=cluster.scheduler_address):
        found.append(result)
        if len(found) == 20:
            killed = kill_one(cluster)
    assert sorted(found) == [x * x for x in range(40)]
    with distributed.Client(cluster) as client:
        client.wait_for_workers(1, timeout=60)
        assert killed not in client.run(os.getpid).values()


@pytest.mark.slow
def test_work_that_ends_every_worker_is_an_error(cluster):
    with pytest.raises(TrainingError, match="ended every worker that took it"):
        list(parallel_map(deadly, [1], ordered=False, scheduler=cluster.scheduler_address))


def pairs(n: int) -> list[Structure]:
    """Cells of two atoms, strained by up to 3 %, all different."""
    cations, anions = "Li Na K Rb Cs Mg Ca Sr Ba Zn Mn Fe Co Ni".split(), "F Cl Br I O S Se Te".split()
    rng = np.random.default_rng(0)
    found = []
    for strain, (basis, place, edge), *pair in product(
        np.linspace(0.97, 1.03, 4), PROTOTYPES.values(), cations, anions
    ):
        radii = sum(Element(name).atomic_radius for name in pair)
        lattice = Lattice(strain * edge * radii * basis @ (np.eye(3) + rng.uniform(-0.01, 0.01, (3, 3))))
        found.append(Structure(lattice, pair, [[0, 0, 0], [place] * 3]))
    return found[:n]


def row(structure: Structure) -> dict:
    cell = {f"cell_{k}": v for k, v in zip(CELL, structure.lattice.parameters, strict=True)}
    atoms = {"Z": [site.specie.Z for site in structure], "frac": structure.frac_coords.ravel().tolist()}
    return {**cell, **atoms, "formation_energy_per_atom": -1.0}


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.slow
def test_a_thousand_relaxations_of_which_a_worker_is_killed_half_way(tmp_path, cluster, capsys):
    pytest.importorskip("chgnet")
    pd.DataFrame([row(one) for one in pairs(1000)]).to_parquet(tmp_path / "pairs.parquet")
    pd.DataFrame([row(one) for one in pairs(112)]).to_parquet(tmp_path / "known.parquet")
    journal, killed = tmp_path / "out" / "work" / "relaxations.jsonl", []

    def watch() -> None:
        while not stop.wait(0.2):
            if not killed and len(lines(journal)) >= 500:
                killed.append((len(lines(journal)), kill_one(cluster)))

    stop, start = threading.Event(), time.perf_counter()
    watcher = threading.Thread(target=watch)
    watcher.start()
    named = [f"samples={tmp_path / 'pairs.parquet'}", f"reference={tmp_path / 'known.parquet'}"]
    at = [f"out={tmp_path / 'out'}", f"dask={cluster.scheduler_address}"]
    try:
        code = app.evaluate([*named, *at, "relax=true", "steps=3", "report=false", "progress=false"])
    finally:
        stop.set()
        watcher.join()
    with capsys.disabled():
        print(f"\nin {time.perf_counter() - start:.0f} s; killed (after relaxations, process): {killed}")
    assert code == 0 and killed and 500 <= killed[0][0] < 1000
    records = [json.loads(line) for line in lines(journal)]
    assert sorted(record["index"] for record in records) == list(range(1000))
    assert [record["error"] for record in records].count(None) > 900
    found = json.loads((tmp_path / "out" / "summary.json").read_text())["stability"]
    assert found["chosen"] == 1000
    table = pd.read_parquet(tmp_path / "out" / "structures.parquet")
    assert len(table) == 1000 and table["relaxed_a"].notna().sum() == sum(r["error"] is None for r in records)
