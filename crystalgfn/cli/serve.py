"""What ``crystalgfn app`` does: serve the page in the browser until Ctrl-C."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from crystalgfn.cli.console import note, tell
from crystalgfn.cli.options.compose import OptionError
from crystalgfn.cli.options.objects import listed
from crystalgfn.errors import NotAvailable
from crystalgfn.utils.run_folder import RunFolder


def run(config: DictConfig, command: str, folder: RunFolder | None) -> dict[str, Any]:
    """Serve the page.

    Raises:
        NotAvailable: fastapi or uvicorn is not installed.
        OptionError: a reference that is not there.
    """
    try:
        import uvicorn

        from crystalgfn.app.security import LOCAL
        from crystalgfn.app.server import AppSettings, create_app
    except ImportError as error:
        raise NotAvailable(
            f'the page needs fastapi and uvicorn ({error}); install them with pip install -e ".[app]"'
        ) from error
    reference = [str(Path(str(one)).expanduser()) for one in listed(config.reference)]
    for one in reference:
        if ":" not in one and not Path(one).exists():
            raise OptionError(f"reference={one}: there is no such file.")
    local = config.host in LOCAL
    token = config.token or (None if local else secrets.token_urlsafe(24))
    settings = AppSettings(runs=Path(config.runs), reference=reference, token=token, hosts=LOCAL if local else ())
    address = f"http://{config.host}:{config.port}/" + (f"?token={token}" if token else "")
    tell(f"The page: {address} (Ctrl-C ends it; runs are kept in {config.runs})")
    if not local:
        note("It is not encrypted: on a network that others use, put it behind a proxy with TLS, or use an SSH tunnel.")
    uvicorn.run(create_app(settings), host=config.host, port=config.port, log_level="warning", server_header=False)
    return {}
