"""A block at a point as a linear operator, and its singular triples."""
