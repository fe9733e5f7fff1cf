"""What the members of a population were given, and what they became."""
