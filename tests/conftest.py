"""What every test shares: seeds, one thread, the real data where they are, and torchtyping on current torch.

``crystalgfn`` must not be imported at the top of this file: typeguard's import hook checks only what is imported later.
"""

from pathlib import Path

import pytest
import torch

if not hasattr(torch.Tensor, "names"):
    # torchtyping 0.1.5 reads the names of named tensors, which torch removed. A tensor without names has None for each.
    torch.Tensor.names = property(lambda self: (None,) * self.dim())

torch.set_num_threads(1)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real crystals that may stand beside a checkout; tests that need it are skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real crystals in ../shared/data, which are not part of the repository")
    return SHARED_DATA
