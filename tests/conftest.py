"""What every test shares: seeds, one thread, the real data where they are, and shape checks on current torch.

``crystalgfn`` must not be imported at the top of this file: typeguard's import hook checks only what is imported later.
"""

import functools
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typeguard
from filelock import FileLock

if not hasattr(torch.Tensor, "names"):
    # torchtyping 0.1.5 reads the names of named tensors, which torch removed. A tensor without names has None for each.
    torch.Tensor.names = property(lambda self: (None,) * self.dim())

torch.set_num_threads(1)

pytest_plugins = ["structure_fixtures"]

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


class _Checks:
    """Whether typeguard's wrappers check the calls of the test that runs; see the marker ``unchecked``."""

    active = True


class _NoMemo:
    """What a wrapper notes of a call that it does not check."""

    type_hints: dict[str, Any] = {}


def _switchable() -> None:
    """Let typeguard's wrappers pass calls through while `_Checks` is not active."""
    memo, arguments, returned = typeguard._CallMemo, typeguard.check_argument_types, typeguard.check_return_type
    typeguard._CallMemo = lambda *args, **kwargs: memo(*args, **kwargs) if _Checks.active else _NoMemo
    typeguard.check_argument_types = lambda memo: memo is _NoMemo or arguments(memo)
    typeguard.check_return_type = lambda value, memo: memo is _NoMemo or returned(value, memo)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    """Tests marked ``unchecked``, with the fixtures that they are the first to need, run without checks of shapes."""
    _Checks.active = item.get_closest_marker("unchecked") is None
    try:
        return (yield)
    finally:
        _Checks.active = True


class _AnythingMeta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return True

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return cls


class Anything(metaclass=_AnythingMeta):
    """Stands in for a name that is imported for type checkers only: every object is an instance of it."""


def pytest_sessionstart() -> None:
    """Make Ctrl-C what it is on a terminal, and let typeguard pass over names under ``if TYPE_CHECKING``.

    A shell's background jobs ignore Ctrl-C. Arguments with other names are checked as before.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    resolve = typeguard.get_type_hints  # torchtyping's, from here on

    @functools.wraps(resolve)
    def tolerant(function: Any, localns: dict[str, Any] | None = None) -> dict[str, Any]:
        names = dict(localns or {})
        while True:
            try:
                return resolve(function, localns=names)
            except NameError as error:
                if error.name in names:
                    raise
                names[error.name] = Anything

    typeguard.get_type_hints = tolerant
    _switchable()


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
