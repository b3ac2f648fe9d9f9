"""Tables for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MOST = 20


def notebook_table(frame: pd.DataFrame, most: int = MOST) -> str:
    """The first rows of a table as HTML, every text escaped; how many more there are stands below.

    Example:
        >>> import pandas as pd
        >>> "&lt;b&gt;" in notebook_table(pd.DataFrame({"formula": ["<b>"]}))
        True
    """
    text = frame.head(most).to_html(index=False, border=0, float_format="{:.3f}".format, na_rep="", escape=True)
    return text + (f"<p>and {len(frame) - most} more</p>" if len(frame) > most else "")
