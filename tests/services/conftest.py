"""The router belongs to another Python, which has the engine; it is started, never imported."""

collect_ignore = ["vearch_router"]
