"""What every page needs of a request: who asks, and a form that comes from one of our own pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rlhf.feedback import annotators
from rlhf.feedback.database import Feedback
from rlhf.feedback.schema import Annotator
from rlhf.feedback.web.security import COOKIE, SESSION_SECONDS, Brake, Session, Sessions
from rlhf.feedback.web.text import plain

MAX_FORM_BYTES = 65_536
_FORM = "application/x-www-form-urlencoded"


class SignInNeeded(Exception):
    """Nobody is signed in, or the session has ended."""


@dataclass(frozen=True)
class Site:
    """What the pages share."""

    feedback: Feedback
    sessions: Sessions
    brake: Brake


@dataclass(frozen=True)
class Visit:
    """A request of somebody who is signed in."""

    site: Site
    session: Session
    annotator: Annotator


def _templates() -> Environment:
    # Everything is escaped, whatever a template is called.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = plain
    return environment


_TEMPLATES = _templates()


def render(name: str, values: Mapping[str, object], status: int = 200) -> HTMLResponse:
    """Render a template to a response."""
    return HTMLResponse(_TEMPLATES.get_template(name).render(values), status)


def signed(found: Visit) -> dict[str, object]:
    """Return what every page of somebody who is signed in shows."""
    return {"me": found.annotator, "csrf": found.site.sessions.csrf(found.session)}


def site(request: Request) -> Site:
    """Return what the pages share."""
    found: Site = request.app.state.site
    return found


def session(request: Request) -> Session | None:
    """Return the session of the request's cookie."""
    return site(request).sessions.read(request.cookies.get(COOKIE))


def visit(request: Request) -> Visit:
    """Return who asks; a token that was revoked or renewed ends its sessions."""
    known = session(request)
    if known is None or not known.annotator:
        raise SignInNeeded
    annotator = annotators.get(site(request).feedback, known.annotator)
    if annotator is None or annotator.revoked_at is not None or annotator.token_id != known.token_id:
        raise SignInNeeded
    return Visit(site(request), known, annotator)


def admin_visit(found: Annotated[Visit, Depends(visit)]) -> Visit:
    """Return who asks if it is an admin."""
    if found.annotator.role != "admin":
        raise HTTPException(403, "This page is for admins.")
    return found


async def form(request: Request) -> Mapping[str, list[str]]:
    """Return the fields of a form that one of our own pages sent."""
    if request.headers.get("content-type", "").partition(";")[0] != _FORM:
        raise HTTPException(415, f"Send the form as {_FORM}.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise HTTPException(413, f"The form has more than {MAX_FORM_BYTES} bytes.")
    fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)
    known = session(request)
    if known is None:
        raise SignInNeeded
    if not site(request).sessions.is_csrf(known, fields.get("csrf", [""])[0]):
        raise HTTPException(403, "This form is not from this page, or it is too old; reload the page.")
    return fields


Fields = Annotated[Mapping[str, list[str]], Depends(form)]
Visiting = Annotated[Visit, Depends(visit)]
AdminVisiting = Annotated[Visit, Depends(admin_visit)]


def keep(response: Response, request: Request, known: Session) -> None:
    """Set the session's cookie; behind TLS it never travels without."""
    response.set_cookie(
        COOKIE,
        site(request).sessions.cookie(known),
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )
