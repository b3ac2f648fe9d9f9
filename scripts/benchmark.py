"""crystalgfn-benchmark for a checkout: python scripts/benchmark.py --help."""

import sys

from crystalgfn.cli.app import benchmark

if __name__ == "__main__":
    sys.exit(benchmark())
