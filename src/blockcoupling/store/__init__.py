"""What a measurement is kept in: the schema, and stores on disk."""
