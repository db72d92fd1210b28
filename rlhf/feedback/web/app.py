"""The application: routes, errors and static files."""

from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from rlhf.feedback.database import Feedback
from rlhf.feedback.web import admin, rating, sign_in
from rlhf.feedback.web.requests import SignInNeeded, Site, render
from rlhf.feedback.web.security import Brake, SecurityHeaders, Sessions
from schemas.errors import UserError

_STATIC = Path(__file__).parent / "static"


def create_app(feedback: Feedback, secret: str, on_closed: Callable[[], None]) -> FastAPI:
    """Make the application; `on_closed` is called after a batch has closed."""
    app = FastAPI(title="rlhf labelling", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.site = Site(feedback, Sessions(secret), Brake())
    app.state.on_closed = on_closed
    app.add_middleware(SecurityHeaders)
    for pages in (sign_in, rating, admin):
        app.include_router(pages.router)
    app.add_api_route("/health", lambda: PlainTextResponse("ok"), response_model=None)
    app.add_api_route("/static/{name}", _static, response_model=None)
    app.add_exception_handler(SignInNeeded, _sign_in_first)
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(UserError, _refused)
    return app


def _static(name: str) -> Response:
    known = {path.name: path for path in _STATIC.iterdir()}
    if name not in known:
        raise HTTPException(404, "There is no such file.")
    return FileResponse(known[name], headers={"Cache-Control": "max-age=3600"})


def _sign_in_first(request: Request, _: Exception) -> Response:
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": "/sign-in"})
    return RedirectResponse("/sign-in", 303)


def _refused(request: Request, error: Exception) -> Response:
    status, message = 409, str(error)
    if isinstance(error, AnyHTTPException):
        status, message = error.status_code, error.detail
    elif isinstance(error, RequestValidationError):
        status, message = 404, "There is no such page."
    if "hx-request" in request.headers:
        return PlainTextResponse(message, status)
    return render("refused.html.j2", {"message": message}, status)
