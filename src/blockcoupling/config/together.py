"""Section `together`: which jobs share a process."""

from blockcoupling.config.section import Section


class Together(Section):
    """Which jobs share a process beside those of a population."""

    datasets: bool = False
    """A checkpoint is measured on all datasets in one job, which loads it once."""
