"""A model that answers: sampling, guardrails, an OpenAI-compatible interface, and MLflow's loader."""
