"""Real faults of machines and clusters, with results compared bit for bit with a run without them.

`make faults` provokes them (faults/__main__.py).
"""
