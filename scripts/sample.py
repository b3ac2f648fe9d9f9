"""crystalgfn-sample for a checkout: python scripts/sample.py --help."""

import sys

from crystalgfn.cli.app import sample

if __name__ == "__main__":
    sys.exit(sample())
