"""From an extraction store to measurements: lazily, a prompt at a time."""
