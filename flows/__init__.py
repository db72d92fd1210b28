"""Prefect flows and the command line: names and arrows."""
