"""crystalgfn-check for a checkout: python scripts/check.py --help."""

import sys

from crystalgfn.cli.app import check

if __name__ == "__main__":
    sys.exit(check())
