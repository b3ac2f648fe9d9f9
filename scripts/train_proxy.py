"""crystalgfn-train-proxy for a checkout: python scripts/train_proxy.py --help."""

import sys

from crystalgfn.cli.app import train_proxy

if __name__ == "__main__":
    sys.exit(train_proxy())
