"""Implementations behind the adapter interface of the conformance suite."""
