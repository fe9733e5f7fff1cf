"""Populations as the arms of an experiment, paired by seed."""
