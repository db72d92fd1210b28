"""Prefect tasks, one file per stage: fetch, call, publish."""
