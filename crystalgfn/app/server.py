"""The server behind the page: forms become runs in the queue, folders become JSON, pictures and downloads.

It listens on the loopback address unless told otherwise, and then wants a token. A request that changes something must
come from the page itself; names of runs and candidates are looked up, never joined to a path.
"""

from __future__ import annotations

import io
import json
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from crystalgfn.app import results, views
from crystalgfn.app.forms import MOST_BYTES
from crystalgfn.app.jobs import DONE, LOG, OWN, PROGRESS, QUEUED, RUNNING, AppRun, JobQueue, Runner
from crystalgfn.app.phase_table import PhaseTable
from crystalgfn.app.plans import plan_of
from crystalgfn.app.prompt import LONGEST, read_prompt
from crystalgfn.app.security import LOCAL, REPORT_POLICY, guard
from crystalgfn.errors import CrystalGFNError
from crystalgfn.evaluation.report.page import REPORT
from crystalgfn.utils.run_folder import RECORD

MOST_BODY = MOST_BYTES * 3 // 2
"""Bytes of a request: files in base64 take up a third more."""
LISTED, LOG_LINES = 100, 40
"""Runs that are listed, and last lines of a log that are shown."""


@dataclass(kw_only=True)
class AppSettings:
    """What a server is told.

    Attributes:
        runs: folder of all runs.
        reference: files of known phases.
        token: what visitors have to show; None: none, which is for the loopback address alone.
        hosts: names by which the server may be called; empty: any, where there is a token.
        runner: does the work of a run; None: the commands.
    """

    runs: Path
    reference: Sequence[str] = ()
    token: str | None = None
    hosts: Sequence[str] = LOCAL
    runner: Runner | None = None
    phases: PhaseTable = field(init=False)

    def __post_init__(self) -> None:
        self.phases = PhaseTable(self.reference)


def create_app(settings: AppSettings) -> FastAPI:
    """The application, to be served by uvicorn or another ASGI server; the queue works as long as it is served.

    Example:
        >>> app = create_app(AppSettings(runs=Path("runs")))
        >>> app.title
        'crystalgfn'
    """
    queue = JobQueue(settings.runs, settings.runner)

    @asynccontextmanager
    async def working(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(queue.__enter__)
        threading.Thread(target=settings.phases.warm, name="phases", daemon=True).start()
        try:
            yield
        finally:
            await run_in_threadpool(queue.__exit__)

    app = FastAPI(title="crystalgfn", lifespan=working, docs_url=None, redoc_url=None, openapi_url=None)
    guard(app, settings.token, settings.hosts)
    _pages(app, settings)
    _runs(app, settings, queue)
    _candidates(app, settings, queue)
    return app


async def _json(request: Request) -> Any:
    """The body of a request, of limited size."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BODY:
            raise HTTPException(413, f"The request is larger than {MOST_BODY // 2**20} MB; send fewer files.")
        parts.append(part)
    try:
        return json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "The request is no JSON.") from error


def _pages(app: FastAPI, settings: AppSettings) -> None:
    folder = Path(__file__).parent
    page = views.page(bool(settings.reference))

    @app.get("/")
    async def index() -> Response:
        return Response(page, media_type="text/html; charset=utf-8")

    for name, kind in (("page.js", "text/javascript"), ("viewer.js", "text/javascript"), ("page.css", "text/css")):
        text = (folder / name).read_text(encoding="utf-8")
        app.get(f"/{name}")(lambda text=text, kind=kind: Response(text, media_type=kind))

    @app.get("/favicon.ico")
    async def icon() -> Response:
        return Response(status_code=204)

    @app.post("/api/prompt")
    async def prompt(request: Request) -> dict[str, Any]:
        said = await _json(request)
        text = said.get("text") if isinstance(said, dict) else None
        if not isinstance(text, str):
            raise HTTPException(400, f"Give text of at most {LONGEST} letters.")
        found = await run_in_threadpool(read_prompt, text)
        return {"form": found.form(), "understood": found.understood, "not_understood": found.not_understood}


def _runs(app: FastAPI, settings: AppSettings, queue: JobQueue) -> None:
    @app.post("/api/runs", status_code=201)
    async def start(request: Request) -> dict[str, Any]:
        said = await _json(request)
        plan = await run_in_threadpool(plan_of, said, settings.reference)
        job = await run_in_threadpool(queue.add, plan)
        return _shown(job, queue)

    @app.get("/api/runs")
    def listed() -> list[dict[str, Any]]:
        return [_shown(one, queue) for one in queue.jobs()[:LISTED]]

    @app.get("/api/runs/{name}")
    def run(name: str) -> dict[str, Any]:
        job = _job(queue, name)
        folder, shown = queue.folder(job), _shown(job, queue)  # before what it found: a run that is done has all
        found = results.found_crystals(folder, job.kind, settings.phases)
        return {
            **shown,
            "commands": views.command_lines(job.commands),
            "python": job.python,
            "request": job.request,
            "log": _tail(folder / OWN / LOG),
            "headline": results.headline(folder, job.kind),
            "candidates": [{"key": one.key, "has_structure": one.structure is not None, **one.card} for one in found],
            "report": (folder / REPORT).is_file(),
            "table": any((folder / one).is_file() for one in ("table.csv", "structures.parquet")),
            "phases": bool(settings.phases),
        }

    @app.post("/api/runs/{name}/stop")
    async def stop(name: str, request: Request) -> dict[str, Any]:
        job = _job(queue, name)
        await run_in_threadpool(queue.stop, job)
        return _shown(job, queue)

    @app.get("/api/runs/{name}/report.html")
    def report(name: str) -> Response:
        path = queue.folder(_job(queue, name)) / REPORT
        headers = {"Content-Security-Policy": REPORT_POLICY}
        return FileResponse(_there(path), media_type="text/html", headers=headers)

    @app.get("/api/runs/{name}/log.txt")
    def log(name: str) -> Response:
        return FileResponse(_there(queue.folder(_job(queue, name)) / OWN / LOG), media_type="text/plain")

    @app.get("/api/runs/{name}/table.csv")
    def table(name: str) -> Response:
        job = _job(queue, name)
        folder = queue.folder(job)
        if (folder / "table.csv").is_file():
            return FileResponse(folder / "table.csv", media_type="text/csv", filename=f"{job.id}.csv")
        return _download(views.csv_of(_there(folder / "structures.parquet")), "text/csv", f"{job.id}.csv")

    @app.get("/api/runs/{name}/cifs.zip")
    def cifs(name: str) -> Response:
        job = _job(queue, name)
        folder, packed = queue.folder(job), io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for one in results.found_crystals(folder, job.kind, settings.phases):
                if one.structure is not None:
                    archive.writestr(f"{_label(one)}.cif", one.cif())
            archive.writestr("commands.txt", "\n".join(views.command_lines(job.commands)) + "\n")
            if (folder / RECORD).is_file():
                archive.write(folder / RECORD, RECORD)
        return _download(packed.getvalue(), "application/zip", f"{job.id}.zip")


def _candidates(app: FastAPI, settings: AppSettings, queue: JobQueue) -> None:
    def one_of(name: str, key: str) -> tuple[list[results.FoundCrystal], results.FoundCrystal]:
        job = _job(queue, name)
        found = results.found_crystals(queue.folder(job), job.kind, settings.phases)
        chosen = next((one for one in found if one.key == key and one.structure is not None), None)
        if chosen is None:
            raise HTTPException(404, "There is no such structure in this run.")
        return found, chosen

    @app.get("/api/runs/{name}/{key}/structure.json")
    def structure(name: str, key: str) -> dict[str, Any]:
        return views.scene(_structure(one_of(name, key)[1]))

    @app.get("/api/runs/{name}/{key}/structure.cif")
    def cif(name: str, key: str) -> Response:
        chosen = one_of(name, key)[1]
        return _download(chosen.cif(), "chemical/x-cif", f"{_label(chosen)}.cif")

    @app.get("/api/runs/{name}/{key}/pattern.svg")
    def pattern(name: str, key: str) -> Response:
        return Response(_pattern(one_of(name, key)[1]), media_type="image/svg+xml")

    @app.get("/api/runs/{name}/{key}/phases.svg")
    def phases(name: str, key: str) -> Response:
        found, chosen = one_of(name, key)
        if not settings.phases:
            raise CrystalGFNError("there is no table of known phases; start the page with reference=<file>")
        diagram = results.phase_diagram(found, chosen.key, settings.phases)
        marked = f"{_structure(chosen).composition.reduced_formula} (rank 1)"
        return Response(views.phases_svg(diagram, marked), media_type="image/svg+xml")


def _job(queue: JobQueue, name: str) -> AppRun:
    job = queue.get(name)
    if job is None:
        raise HTTPException(404, "There is no such run.")
    return job


def _there(path: Path) -> Path:
    if not path.is_file():
        raise HTTPException(404, "This run has no such file (yet).")
    return path


def _structure(one: results.FoundCrystal) -> Any:
    try:
        return None if one.structure is None else one.structure()
    except (OSError, ValueError, IndexError) as error:
        raise CrystalGFNError("the structure cannot be read") from error


@lru_cache(maxsize=256)
def _pattern(one: results.FoundCrystal) -> str:
    return views.pattern_svg(_structure(one))


def _label(one: results.FoundCrystal) -> str:
    formula = "".join(letter for letter in one.card["formula"] if letter.isalnum())
    return f"{one.card['rank'] or 0:04d}_{formula}_{one.card['space_group'] or 0}"


def _download(content: str | bytes, kind: str, name: str) -> Response:
    return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _tail(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        return "\n".join(file.read().decode("utf-8", errors="replace").splitlines()[-LOG_LINES:])


def _shown(job: AppRun, queue: JobQueue) -> dict[str, Any]:
    """A run in the list."""
    path, progress = queue.folder(job) / OWN / PROGRESS, None
    if job.state == RUNNING and path.is_file():
        try:
            progress = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            progress = None  # it is just being written or taken away
    end = job.ended or time.time()
    return {
        **{name: getattr(job, name) for name in ("id", "kind", "title", "state", "words", "created")},
        "ahead": queue.ahead(job) if job.state == QUEUED else 0,
        "progress": progress,
        "seconds": None if job.started is None or job.state == QUEUED else round(end - job.started, 1),
        "done": job.state == DONE,
    }
