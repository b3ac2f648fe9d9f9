"""crystalgfn-train for a checkout: python scripts/train.py --help."""

import sys

from crystalgfn.cli.app import train

if __name__ == "__main__":
    sys.exit(train())
