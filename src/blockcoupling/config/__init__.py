"""What a study's configuration can say: its sections, their keys and their defaults.

`blockcoupling.study.check.load_config` reads a file into a `Study` and reports everything wrong.
Relative paths are taken from the working directory, as everywhere in Snakemake.
"""

from blockcoupling.config.datasets import BuiltinDataset, Dataset, HubDataset, JsonlDataset
from blockcoupling.config.models import HubModel, LocalModel, Model, TrainedModel, Training
from blockcoupling.config.steps import Correlate, Extract, Figures, HarnessTask, Reduce, Score
from blockcoupling.config.study import Study

__all__ = [
    "BuiltinDataset",
    "Correlate",
    "Dataset",
    "Extract",
    "Figures",
    "HarnessTask",
    "HubDataset",
    "HubModel",
    "JsonlDataset",
    "LocalModel",
    "Model",
    "Reduce",
    "Score",
    "Study",
    "TrainedModel",
    "Training",
]
