"""A backend that offers nothing."""

from rlhf.conformance.backend import Backend

backend = Backend()
