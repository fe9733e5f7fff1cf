"""Section `together`: which jobs share a process."""

from blockcoupling.config.section import Section


class Together(Section):
    """Which jobs share a process, in addition to those of a population."""

    datasets: bool = False
    """Measure a checkpoint on all datasets in one job, which loads it once."""
