"""Models on disk and in memory: loading, scalar heads, adapters, precision, sampling."""
