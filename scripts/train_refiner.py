"""crystalgfn-train-refiner for a checkout: python scripts/train_refiner.py --help."""

import sys

from crystalgfn.cli.app import train_refiner

if __name__ == "__main__":
    sys.exit(train_refiner())
