"""Sign in with a personal token, and out again."""

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from rlhf.feedback import annotators
from rlhf.feedback.web.requests import Fields, keep, render, session, site
from rlhf.feedback.web.security import COOKIE

router = APIRouter()


@router.get("/sign-in", response_model=None)
def ask(request: Request) -> Response:
    """Ask for the token."""
    return _page(request)


@router.post("/sign-in", response_model=None)
def enter(request: Request, fields: Fields) -> Response:
    """Begin a session of the token's owner."""
    address = request.client.host if request.client else ""
    brake = site(request).brake
    if brake.is_on(address):
        return _page(request, 429, "Too many attempts from here; wait some minutes.")
    found = annotators.signed_in(site(request).feedback, fields.get("token", [""])[0][:200])
    if found is None:
        brake.failed(address)
        return _page(request, 403, "This token is not known. Ask whoever gave it to you for a new one.")
    response = RedirectResponse("/", 303)
    # A session of its own: a cookie that somebody planted before is worth nothing afterwards.
    keep(response, request, site(request).sessions.new(found.id, found.token_id or ""))
    return response


@router.post("/sign-out", response_model=None)
def leave(fields: Fields) -> Response:
    """End the session of this browser."""
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(COOKIE, path="/")
    return response


def _page(request: Request, status: int = 200, message: str = "") -> Response:
    known = session(request) or site(request).sessions.new()
    values = {"csrf": site(request).sessions.csrf(known), "message": message}
    response = render("sign_in.html.j2", values, status)
    keep(response, request, known)
    return response
