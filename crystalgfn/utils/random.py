"""Seeds of the numbered parts of one job: streams of a training, shards of a data set."""

from __future__ import annotations

import numpy as np


def derived_seed(seed: int, number: int) -> int:
    """The seed of a part: a hash (numpy's SeedSequence) of the job's seed and the part's number, below 2**63."""
    return int(np.random.SeedSequence([seed % 2**64, number]).generate_state(1, np.uint64)[0] >> np.uint64(1))
