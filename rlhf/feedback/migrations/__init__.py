"""Alembic's steps from one layout of the feedback database to the next."""
