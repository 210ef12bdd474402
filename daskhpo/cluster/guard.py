"""The door of a dashboard: without the token of its scheduler no page is served."""

from __future__ import annotations

import hmac
import secrets
from typing import Any
from urllib.parse import urlencode

OPEN = "/individual-plots.json"  # names of plots, which JupyterLab's extension reads itself
TOKEN = "daskhpo-token"  # name of the token among the extensions of Dask's scheduler


def token_of(scheduler: Any) -> str:
    """Return the token of a scheduler's pages, drawn at the first call."""
    token: str = scheduler.extensions.setdefault(TOKEN, secrets.token_urlsafe(16))
    return token


def cookie_of(scheduler: Any) -> str:
    """Return the name of the cookie in which a browser keeps the token."""
    return f"daskhpo-token-{scheduler.http_server.port}"


def guard_pages(scheduler: Any) -> None:
    """Ask for the token on every page of a scheduler, Dask's own too.

    All users of a machine can connect to its ports. Dask's pages show them the names, the code and
    the errors of what runs, and pass requests on to other addresses.

    A browser that comes with ``?token=...`` is sent on, and keeps it as a cookie. A program gives
    it in each request, or as the header ``Authorization: token ...``.
    """
    application = scheduler.http_application
    token, find = token_of(scheduler), application.find_handler

    def find_behind_door(request: Any, **options: Any) -> Any:
        if request.path.endswith(OPEN) or _matches(token, _cookie(request, cookie_of(scheduler))):
            return find(request, **options)
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() in ("token", "bearer") and _matches(token, given.strip()):
            return find(request, **options)
        if not _matches(token, _last_argument(request)):
            return application.get_handler_delegate(request, _handlers()[0])
        if "text/html" not in request.headers.get("Accept", ""):
            return find(request, **options)
        keep = {"name": cookie_of(scheduler), "token": token}
        return application.get_handler_delegate(request, _handlers()[1], keep)

    application.find_handler = find_behind_door


def _matches(token: str, given: str) -> bool:
    return hmac.compare_digest(token.encode(), given.encode(errors="replace"))


def _cookie(request: Any, name: str) -> str:
    found = request.cookies.get(name)
    return found.value if found is not None else ""


def _last_argument(request: Any) -> str:
    values = request.query_arguments.get("token") or [b""]
    return str(values[-1].decode(errors="replace"))


def _handlers() -> tuple[Any, Any]:
    """Return what answers a browser without the token, and one that brings it."""
    from tornado.web import RequestHandler

    class Refusal(RequestHandler):
        def prepare(self) -> None:
            self.set_status(403)
            self.set_header("Cache-Control", "no-store")
            self.finish(_REFUSAL)

        def compute_etag(self) -> None:
            return None

    class Entry(RequestHandler):
        def initialize(self, name: str, token: str) -> None:
            self.name, self.token = name, token

        def prepare(self) -> None:
            self.set_cookie(self.name, self.token, httponly=True, samesite="Lax", expires_days=30)
            rest = [
                (name, value)
                for name, values in self.request.query_arguments.items()
                for value in values
                if name != "token"
            ]
            # Relative, since a proxy may have shortened the path.
            page = self.request.path.rpartition("/")[2] or "."
            self.redirect(f"./{page}?{urlencode(rest)}" if rest else f"./{page}")

    return Refusal, Entry


_REFUSAL = """<!doctype html><meta charset="utf-8"><title>daskhpo: token needed</title>
<body style="font: 16px sans-serif; max-width: 40em; margin: 4em auto">
<p><b>This page needs a token</b>, because other users of the machine can open its address.
The link that the study printed has it; so has the file <code>dashboard.json</code> in the study's
directory.</p>
<form><input type="password" name="token" placeholder="token" autofocus size="30">
<button>open</button></form>
"""
