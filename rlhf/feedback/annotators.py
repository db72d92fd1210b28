"""Who may answer: tokens, roles, and raters whose rankings do not count for now.

A token is `PUBLIC.SECRET`. The database holds the public half and a scrypt hash of the secret one, so that neither
a stolen database nor a log gives anybody a way in.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from rlhf.feedback.batches import recount
from rlhf.feedback.database import Feedback, now
from rlhf.feedback.schema import Annotator
from schemas.errors import AnswerRefused, NotFound

Role = Literal["rater", "admin", "simulated"]

_COST = {"n": 2**14, "r": 8, "p": 1, "maxmem": 2**26}
_NOBODY = "00" * 16 + ":" + "00" * 64


def add(feedback: Feedback, name: str, role: Role = "rater") -> str:
    """Add somebody and return their token, which is shown this once; a name that exists gets a new token."""
    if not name.strip() or len(name) > 80 or not name.isprintable():
        raise AnswerRefused(f"{name[:80]!r} is no name; wanted 1 to 80 printable characters.")
    public, secret = secrets.token_hex(6), secrets.token_urlsafe(24)
    with feedback.write() as session:
        annotator = _named(session, name, role)
        annotator.role = role
        annotator.token_id, annotator.token_hash = public, _hash(secret)
        annotator.revoked_at = None
    return f"{public}.{secret}"


def simulated(feedback: Feedback, name: str) -> Annotator:
    """Return the simulated rater of a name; it has no token, so nobody can sign in as it."""
    with feedback.write() as session:
        return _named(session, name, "simulated")


def outside(feedback: Feedback, name: str) -> int:
    """Return the id of a rater who answered elsewhere; without a token until an admin gives one."""
    with feedback.write() as session:
        return _named(session, name, "rater").id


def _named(session: Session, name: str, role: Role) -> Annotator:
    found = session.scalar(select(Annotator).where(Annotator.name == name))
    if found is None:
        found = Annotator(name=name, role=role, created_at=now())
        session.add(found)
        session.flush()
    return found


def signed_in(feedback: Feedback, token: str) -> Annotator | None:
    """Return whose token this is; None for a wrong or revoked one, after the same work."""
    public, _, secret = token.strip().partition(".")
    with feedback.read() as session:
        found = session.scalar(select(Annotator).where(Annotator.token_id == public[:64]))
    known = found.token_hash if found and found.revoked_at is None else None
    salt, _, wanted = (known or _NOBODY).partition(":")
    given = hashlib.scrypt(secret.encode(), salt=bytes.fromhex(salt), **_COST).hex()
    return found if hmac.compare_digest(given, wanted) and known else None


def _hash(secret: str) -> str:
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}:{hashlib.scrypt(secret.encode(), salt=salt, **_COST).hex()}"


def get(feedback: Feedback, annotator_id: int) -> Annotator | None:
    """Return somebody by id."""
    with feedback.read() as session:
        return session.get(Annotator, annotator_id)


def named(feedback: Feedback, name: str) -> Annotator:
    """Return somebody by name."""
    with feedback.read() as session:
        found = session.scalar(select(Annotator).where(Annotator.name == name))
        known = session.scalars(select(Annotator.name).order_by(Annotator.id).limit(10)).all()
    if found is None:
        raise NotFound(f"Nobody is called {name!r}; known are: {', '.join(known) or 'nobody yet'}.")
    return found


def everybody(feedback: Feedback) -> Sequence[Annotator]:
    """Return all, in the order in which they came."""
    with feedback.read() as session:
        return session.scalars(select(Annotator).order_by(Annotator.id)).all()


def revoke(feedback: Feedback, name: str) -> None:
    """End somebody's access; what they answered stays."""
    annotator = named(feedback, name)
    with feedback.write() as session:
        session.execute(update(Annotator).where(Annotator.id == annotator.id).values(revoked_at=now()))


def exclude(feedback: Feedback, annotator_id: int, because: str) -> None:
    """Leave somebody's rankings out from now on, without deleting any."""
    with feedback.write() as session:
        session.execute(
            update(Annotator)
            .where(Annotator.id == annotator_id, Annotator.excluded_at.is_(None))
            .values(excluded_at=now(), excluded_because=because.replace("\0", "")[:500])
        )
        recount(session)


def restore(feedback: Feedback, annotator_id: int) -> None:
    """Let somebody's rankings count again."""
    with feedback.write() as session:
        session.execute(
            update(Annotator)
            .where(Annotator.id == annotator_id)
            .values(excluded_at=None, excluded_because=None)
        )
        recount(session)
