"""A study as a directory that one can hand on: tables, stores, catalog, and what describes them."""
