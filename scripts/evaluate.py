"""crystalgfn-evaluate for a checkout: python scripts/evaluate.py --help."""

import sys

from crystalgfn.cli.app import evaluate

if __name__ == "__main__":
    sys.exit(evaluate())
