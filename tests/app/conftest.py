"""A server whose runs are made by a function of the test, and clients of it."""

import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")


@pytest.fixture
def served(tmp_path):
    """Starts servers, as clients that are closed at the end: served(runner, **settings)."""
    from fastapi.testclient import TestClient

    from crystalgfn.app.server import AppSettings, create_app

    opened = []

    def serve(runner, **settings):
        settings = {"hosts": (), "runs": tmp_path / "runs", **settings}
        client = TestClient(create_app(AppSettings(runner=runner, **settings)))
        opened.append(client)
        return client.__enter__()

    yield serve
    for client in opened:
        client.__exit__(None, None, None)


def ended(client, name, seconds=20.0):
    """The run when it is no longer waiting or working."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        said = client.get(f"/api/runs/{name}").json()
        if said["state"] not in ("queued", "running"):
            return said
        time.sleep(0.02)
    raise AssertionError(f"{name} is still {said['state']}")
