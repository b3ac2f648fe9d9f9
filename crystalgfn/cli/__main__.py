"""``python -m crystalgfn.cli <command>``: the command line, where its programs are not on the path."""

import sys

from crystalgfn.cli.app import main

sys.exit(main())
