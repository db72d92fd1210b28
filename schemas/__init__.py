"""Every shape that crosses a boundary: configuration, refs, tables, reports, errors. Never torch."""
