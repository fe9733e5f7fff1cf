"""The model's side: its blocks, how they were called, and how they attend."""
