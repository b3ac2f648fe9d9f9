"""How the maintenance programs end: what a user can act on is one sentence and an exit code of 2."""

from __future__ import annotations

import sys
from collections.abc import Callable

from crystalgfn.errors import CrystalGFNError, sentence, unusable


def run(main: Callable[[], None]) -> None:
    """The command of a module (``python -m``): what a user can act on becomes one sentence and an exit status of 2."""
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except (CrystalGFNError, OSError) as error:
        words = unusable(error) if isinstance(error, OSError) else sentence(error)
        print(f"error: {words}.", file=sys.stderr)
        sys.exit(2)
