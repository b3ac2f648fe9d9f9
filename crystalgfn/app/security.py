"""Who may ask the server, and what every answer says.

On the loopback address anyone on the machine may; elsewhere a token is wanted. A request that changes something must
come from the page itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException

from crystalgfn.errors import CrystalGFNError, sentence

COOKIE = "crystalgfn_token"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; worker-src blob:; frame-ancestors 'none'"
)
"""A report is one file with its scripts in it; it is shown apart from the page, without its rights."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LOCAL = ("127.0.0.1", "localhost", "::1")


def guard(app: FastAPI, token: str | None, hosts: Sequence[str]) -> None:
    """Refuse what may not be, answer errors in a sentence, and put the headers on all answers.

    Args:
        app: the application.
        token: what visitors have to show; None: nothing.
        hosts: names by which the server may be called; empty: any.
    """

    @app.middleware("http")
    async def middle(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        response = _foreign(request, hosts) or _stranger(request, token) or await go_on(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.exception_handler(CrystalGFNError)
    async def wrong(_: Request, error: CrystalGFNError) -> JSONResponse:
        words = sentence(error)
        field = ":" in " ".join(words.split()[:3])  # a field of the form is called as it is
        return _refusal(422, f"{words if field else words[:1].upper() + words[1:]}.")

    @app.exception_handler(HTTPException)
    async def not_there(_: Request, error: HTTPException) -> JSONResponse:
        return _refusal(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> JSONResponse:
        return _refusal(500, "The server has made a mistake; its terminal says which.")


def _foreign(request: Request, hosts: Sequence[str]) -> Response | None:
    """The refusal of a request that does not come from this page."""
    host = request.headers.get("host", "")
    if hosts and _name(f"//{host}") not in hosts:  # a foreign name that points here: DNS rebinding
        return _refusal(421, "This server is not called so; open the address that it printed when it started.")
    if request.method in ("GET", "HEAD"):
        return None
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if origin not in (None, f"http://{host}", f"https://{host}") or site not in (None, "same-origin", "none"):
        return _refusal(403, "Requests that start or stop a run must come from the page itself.")
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        return _refusal(415, "The request must be JSON.")
    return None


def _name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _stranger(request: Request, token: str | None) -> Response | None:
    """The refusal of a visitor without the token; one who shows it in the address gets it as a cookie."""
    if token is None or _same(request.cookies.get(COOKIE), token):
        return None
    if _same(request.headers.get("authorization", "").removeprefix("Bearer "), token):
        return None
    if request.method == "GET" and _same(request.query_params.get("token"), token):
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict", max_age=30 * 86_400)
        return response
    return _refusal(401, "This page needs its token: open the address that the server printed when it started.")


def _same(shown: str | None, token: str) -> bool:
    return secrets.compare_digest((shown or "").encode(), token.encode())


def _refusal(code: int, words: str) -> JSONResponse:
    return JSONResponse({"error": words}, status_code=code)
