"""What a study's configuration can say: its sections, their keys and their defaults.

`blockcoupling.config.load_config` reads a file into a `Study` and reports everything wrong with it.
Relative paths are taken from the working directory, as everywhere in Snakemake.
"""

from blockcoupling.study.datasets import BuiltinDataset, Dataset, HubDataset, JsonlDataset
from blockcoupling.study.models import HubModel, LocalModel, Model, TrainedModel, Training
from blockcoupling.study.steps import Correlate, Extract, Figures, HarnessTask, Reduce, Score
from blockcoupling.study.study import Study

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
