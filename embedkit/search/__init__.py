"""How a query runs: planning, searching, fusing, joining products."""
