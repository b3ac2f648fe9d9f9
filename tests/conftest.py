"""What every test shares: seeds, one thread, and the real data where they are.

``crystalgfn`` must not be imported at the top of this file: typeguard's import hook checks only what is imported later.
"""

import gc
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monty.design_patterns
import pytest
import torch
from filelock import FileLock

torch.set_num_threads(1)
monty.design_patterns.WeakValueDictionary = dict  # pymatgen forgets its space groups, and takes long to make one again

pytest_plugins = ["forks", "shape_checks", "structure_fixtures"]

#: Modules that take longest, which begin first: so processes that share the tests end together.
LONGEST = (
    "golden/test_golden.py", "gfn/test_distributed.py", "benchmarks/csp/test_run.py", "data/test_samples.py",
    "sampling/test_sampler.py", "gfn/test_training.py", "cli/test_benchmark.py", "cli/test_killed.py",
    "envs/test_crystal.py", "structures/test_build.py", "cli/test_evaluate.py", "house/test_packaging.py",
    "data/test_shards.py", "benchmarks/test_throughput.py", "space/test_space.py", "fitting/test_proxy.py",
    "sampling/test_shipped_samplers.py", "envs/test_lattice.py", "benchmarks/test_ais.py", "cli/test_app.py",
    "crystallography/test_realizable.py", "docs/test_docs_notebook.py", "docs/test_docs_blocks.py",
    "rewards/test_packing.py", "cli/test_entry_point.py", "gfn/test_live_view.py",
)  # fmt: skip
TESTS = Path(__file__).resolve().parent
SHARED_DATA = TESTS.parents[1] / "shared" / "data"


def pytest_sessionstart() -> None:
    """Make Ctrl-C what it is on a terminal: a shell's background jobs ignore it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("xdist"):
        config.option.loadscopereorder = False  # the order is that of `pytest_collection_modifyitems`


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules first, the others as they were."""
    place = {TESTS / name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_collection_finish() -> None:
    """What is there before the first test stays: Python need not look through it for garbage again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """Calls a function once for all processes that share the tests; the others read what it returned."""

    def get(name: str, make: Callable[[], Any]) -> Any:
        if worker_id == "master":
            return make()
        folder = tmp_path_factory.getbasetemp().parent
        path = folder / f"{name}.pickle"
        with FileLock(folder / f"{name}.lock"):
            if not path.exists():
                path.write_bytes(pickle.dumps(make()))
        return pickle.loads(path.read_bytes())

    return get


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real crystals that may stand beside a checkout; tests that need it are skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real crystals in ../shared/data, which are not part of the repository")
    return SHARED_DATA


@pytest.fixture(scope="session")
def small_refiner():
    """Makes a small refiner that was never trained; with a mean volume, one whose coordinates move at random."""

    def make(volume=None):
        from crystalgfn.structures.refiner.network import ScoreNetwork
        from crystalgfn.structures.refiner.refiner import DiffusionRefiner

        torch.manual_seed(0)
        network = ScoreNetwork(width=16, layers=1, radial=6, waves=2, cutoff=4.0)
        network.std.fill_(0.1)
        if volume is not None:
            network.mean[:, 5] = volume
            torch.nn.init.normal_(network.out[-1].weight, std=0.1)
        return DiffusionRefiner(network)

    return make
