"""A whole study: every section, every default, and what each job needs to know."""

import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from pydantic import Field, NonNegativeInt, model_validator

from blockcoupling.config.choices import DEFAULT_K, TABULATED_K, Modality
from blockcoupling.config.correlate import Correlate
from blockcoupling.config.damage import Damage
from blockcoupling.config.datasets import BuiltinDataset, Dataset
from blockcoupling.config.figures import Figures
from blockcoupling.config.intervention import Intervention
from blockcoupling.config.measurement import Extract, Loading, Solving, kept_for
from blockcoupling.config.models import (
    INIT,
    HubModel,
    LocalModel,
    Model,
    TrainedModel,
    Training,
)
from blockcoupling.config.presets import PRESETS
from blockcoupling.config.published import (
    Result,
    demand_one_scale,
    of_repository,
    one_each,
    read_results,
)
from blockcoupling.config.reduce import Reduce
from blockcoupling.config.score import Score
from blockcoupling.config.section import Name, Section, UserPath
from blockcoupling.config.together import Together
from blockcoupling.config.tokenwise import Tokenwise
from blockcoupling.config.vision import VisionTraining
from blockcoupling.errors import UserError
from blockcoupling.wording import did_you_mean

HEADLINE_K = 10


class Study(Section):
    """A whole study, every default filled in."""

    study: Name = "study"
    """Its name, which results and catalog are named after."""
    results: UserPath = Field(
        default_factory=lambda data: Path("results") / data.get("study", "study"),
        examples=["/scratch/me/results"],
    )
    """Directory of the results; default: `results/STUDY`."""
    catalog: UserPath = Field(
        default_factory=lambda data: Path("catalog") / f"{data.get('study', 'study')}.yml"
    )
    """The catalog file; default: `catalog/STUDY.yml`."""
    rates: UserPath = Field(default=Path("rates.yaml"), examples=["profiles/slurm/rates.yaml"])
    """Rates of the machines, for estimates of time; `blockcoupling calibrate` writes them."""
    seed: NonNegativeInt = 0
    """Seed of everything that is drawn, unless a section has its own."""
    suite: UserPath | None = None
    """A file of models; `models` can name some of them."""
    models: dict[Name, Model] = Field(min_length=1)
    datasets: dict[Name, Dataset] = Field(
        default={
            "heldout": BuiltinDataset(name="heldout", prompts=8),
            "handwritten": BuiltinDataset(name="handwritten"),
        },
        min_length=1,
    )
    extract: Extract = Extract()
    reduce: Reduce = Reduce()
    tokenwise: Tokenwise | None = None
    damage: Damage | None = None
    intervention: Intervention | None = None
    score: Score = Score()
    weight_spectra: bool = False
    """Fit power laws to the spectra of every checkpoint's weight matrices."""
    correlate: Correlate = Correlate()
    figures: Figures = Figures()
    together: Together = Together()

    @model_validator(mode="after")
    def _fill_in(self) -> "Study":
        largest = self.extract.k or DEFAULT_K
        chosen = self.reduce.k or [k for k in TABULATED_K if k <= largest]
        self.reduce.k = sorted(set(chosen))
        if self.correlate.k is None:
            below = [k for k in self.reduce.k if k <= HEADLINE_K]
            self.correlate.k = max(below, default=self.reduce.k[0])
        self._follow_preset()
        self._settle_measurement()
        if self.intervention is not None and not self.intervention.doses:
            self.intervention.doses = self._coupled_populations(self.intervention.control)
        if self.correlate.seed is None:
            self.correlate.seed = self.seed
        for dataset in self.datasets.values():
            if dataset.seed is None:
                dataset.seed = self.seed
        if self.score.metric is None:
            self.score.metric = self._default_metric()
        if "datasets" not in self.model_fields_set and "text" not in self.modalities():
            raise ValueError("datasets: image models need images; give a dataset with `images`")
        return self

    def modalities(self) -> list[Modality]:
        """What the models of the study take, language models first."""
        taken = {model.takes for model in self.models.values()}
        return [each for each in get_args(Modality) if each in taken]

    def datasets_of(self, model: str) -> list[str]:
        """The datasets that a model is measured on: those that hold what it takes."""
        taken = self.models[model].takes
        return [name for name, dataset in self.datasets.items() if dataset.holds == taken]

    def _follow_preset(self) -> None:
        """A preset is about certain variants: those are tabulated, unless others are named."""
        if self.extract.preset is not None:
            variants = PRESETS[self.extract.preset].variants
            if "variants" not in self.reduce.model_fields_set:
                self.reduce.variants = list(variants)
            if "variant" not in self.correlate.model_fields_set:
                self.correlate.variant = next(v for v in self.reduce.variants if v in variants)

    def _settle_measurement(self) -> None:
        """What follows from other sections where the section itself does not say."""
        settled = {"seed": self.seed, **kept_for(self.reduce.variants)}
        self.extract = self.extract.model_copy(update=_where_unset(self.extract, settled))
        if self.tokenwise is not None:
            settled = {**self.extract.only(Solving), **self.extract.only(Loading)}
            settled["swapped"] = kept_for(self.reduce.variants)["swapped"]
            self.tokenwise = self.tokenwise.model_copy(update=_where_unset(self.tokenwise, settled))
        if self.damage is not None:
            settled = {**self.extract.only(Loading), "stream": self.extract.stream}
            given = {**settled, "k": self.reduce.k}
            self.damage = self.damage.model_copy(update=_where_unset(self.damage, given))

    def populations(self) -> list[str]:
        """Names of the populations, in the order of the configuration."""
        trained = (each for each in self.models.values() if isinstance(each, TrainedModel))
        return list(dict.fromkeys(each.population for each in trained if each.population))

    def _coupled_populations(self, control: str) -> list[str]:
        """Those whose training has a penalty on coupling."""
        coupled = [
            each.population
            for each in self.models.values()
            if isinstance(each, TrainedModel)
            and isinstance(each.train, Training)
            and each.train.penalty.kind == "coupling"
            and each.train.penalty.weight
        ]
        return [name for name in self.populations() if name in coupled and name != control]

    def _default_metric(self) -> str:
        if self.score.name in self.score.harness:
            return "acc"
        recorded = (model.scores.get(self.score.name) for model in self.models.values())
        return next((score.metric for score in recorded if score), "nats_per_byte")

    def checkpoints(self, model: str) -> list[str]:
        """Names of a model's checkpoints, in order of training; `init` first where asked for."""
        return self.models[model].names()

    def jobs(self) -> Iterator[tuple[str, str, str]]:
        """Every (model, checkpoint, dataset) to be measured, in the order of the configuration."""
        for model in self.models:
            for checkpoint in self.checkpoints(model):
                for dataset in self.datasets_of(model):
                    yield model, checkpoint, dataset

    def token_jobs(self) -> Iterator[tuple[str, str, str]]:
        """Every (model, checkpoint, dataset) whose tokens are compared; none where not asked."""
        return self._some_jobs(self.tokenwise)

    def damage_jobs(self) -> Iterator[tuple[str, str, str]]:
        """Every (model, checkpoint, dataset) whose blocks are changed; none where not asked."""
        return self._some_jobs(self.damage)

    def _some_jobs(self, section: Tokenwise | Damage | None) -> Iterator[tuple[str, str, str]]:
        if section is None:
            return
        chosen = section.datasets or list(self.datasets)
        for model, checkpoint, dataset in self.jobs():
            if self.models[model].takes != "text":
                continue
            names = self.checkpoints(model)
            untrained = names[0] if names[0] in (INIT, "step0") else names[-1]
            ends = checkpoint in (untrained, names[-1])
            if dataset in chosen and (ends or section.checkpoints == "all"):
                yield model, checkpoint, dataset

    def damage_of(self, model: str, checkpoint: str, dataset: str) -> Damage:
        """What is done to a checkpoint's blocks, and how its job does it.

        Passages are the same whatever the prompts: the first dataset's job has them.
        """
        assert self.damage is not None
        streams = self.streams(model, checkpoint, self.damage.stream)
        first = next(each for _, _, each in self.damage_jobs())
        passages = self.damage.passages if dataset == first else 0
        return self.damage.model_copy(update={"stream": streams, "passages": passages})

    def chunks(self) -> dict[str, list[str]]:
        """Models whose small jobs share a process, by the name of their group.

        Members of a population are grouped in order, a given number at a time: adding members does
        not change earlier groups.
        """
        members: dict[str, list[str]] = {}
        for name, section in self.models.items():
            if isinstance(section, TrainedModel) and section.population and section.together > 1:
                members.setdefault(section.population, []).append(name)
        chunks: dict[str, list[str]] = {}
        for population, names in members.items():
            section = self.models[names[0]]
            size = section.together if isinstance(section, TrainedModel) else 1
            for start in range(0, len(names), size):
                name = f"{re.sub('[^A-Za-z0-9]', '_', population)}_{start // size}"
                while name in chunks:
                    name += "_"
                chunks[name] = names[start : start + size]
        return chunks

    def extract_of(self, model: str, checkpoint: str) -> Extract:
        """What is measured of a checkpoint, and how its job does it."""
        section = self.models[model]
        tokens = section.measured_at or (
            self.extract.tokens if section.takes == "text" else "class"
        )
        settled = {"stream": self.streams(model, checkpoint), "tokens": tokens}
        return self.extract.model_copy(update=settled)

    def streams(self, model: str, checkpoint: str, asked: bool | None = None) -> bool:
        """Whether a checkpoint's weights are read block by block, as `extract.stream` asks.

        Weights that are not in files as they are measured (re-initialised, quantized) cannot be.
        """
        spec = self.models[model].spec(model, checkpoint)
        in_files = spec["init_seed"] is None and spec["quantization"] is None
        in_files = in_files and self.models[model].takes == "text"
        return (self.extract.stream if asked is None else asked) and in_files

    def train_spec(self, model: str) -> dict[str, Any]:
        """Everything `train` needs, as plain JSON; changes with the model's own section only."""
        section = self.models[model]
        if not isinstance(section, TrainedModel):
            raise KeyError(f"{model} is not trained by this study")
        return {
            "name": model,
            **section.train.model_dump(mode="json"),
            "checkpoints": section.checkpoints,
        }

    def training_dir(self, model: str) -> Path:
        """Where the checkpoints of a model trained here are kept, as `step{n}`."""
        return self.results / "checkpoints" / model

    def model_spec(self, model: str, checkpoint: str) -> dict[str, Any]:
        """Everything `blockcoupling.sources.models.model_record` needs, as plain JSON.

        It changes with the model's own section (and the results directory) only, so that adding a
        model leaves the others' jobs alone.
        """
        section = self.models[model]
        spec = section.spec(model, checkpoint)
        if isinstance(section, TrainedModel):
            spec["path"] = str(self.training_dir(model) / spec["path"])
        return spec

    def dataset_spec(self, dataset: str) -> dict[str, Any]:
        """Everything `blockcoupling.sources.prompts.load_prompts` needs, as plain JSON."""
        return {"dataset": dataset, **self.datasets[dataset].model_dump(mode="json")}

    def score_spec(self, model: str, checkpoint: str) -> dict[str, Any]:
        """What `blockcoupling.scores.scores.evaluate` needs in addition to the model's record."""
        section = self.models[model]
        last = section.names()[-1]
        trained = section.train if isinstance(section, TrainedModel) else None
        seen = None
        if isinstance(trained, Training):
            seen = trained.model_dump(include={"text", "shuffled"})
        images = trained.images if isinstance(trained, VisionTraining) else None
        of_text = section.takes == "text"
        published = [result.row() for result in self.published.get((model, checkpoint), [])]
        of_hub = isinstance(section, HubModel) and checkpoint != INIT
        repository = self.score.repositories and of_hub
        test = {"images": {"images": images.model_dump(mode="json")}} if images else {}
        return {
            "heldout": self.score.heldout and of_text,
            **(test if self.score.test else {}),
            **({"gap": seen} if seen and self.score.gap else {}),
            "harness": {
                name: {**task.model_dump(mode="json"), "task": task.task or name}
                for name, task in self.score.harness.items()
                if of_text
            },
            "recorded": {
                name: score.model_dump(mode="json", exclude={"checkpoint"})
                for name, score in section.scores.items()
                if (score.checkpoint or last) == checkpoint
            },
            **({"published": published} if published else {}),
            **({"repository": self.score.several} if repository else {}),
        }

    @cached_property
    def published(self) -> dict[tuple[str, str], list[Result]]:
        """Scores of others, by model and checkpoint of this study; each score and metric once.

        Raises:
            UserError: A file cannot be read, results contradict each other, or none is of a model
                of this study.
        """
        results = read_results(self.score.published)
        found: dict[tuple[str, str], list[Result]] = {}
        for model, section in self.models.items():
            names = self._published_as(model)
            for result in results:
                known = [each for each in _spellings(result.model) if each in names]
                if known:
                    at = names[known[0]] or section.checkpoint_published(result.revision)
                    if at is not None:
                        found.setdefault((model, at), []).append(result)
            if self.score.repositories and isinstance(section, LocalModel):
                for checkpoint, directory in section.trained_checkpoints().items():
                    found.setdefault((model, checkpoint), []).extend(of_repository(directory))
        if results and not any(found.values()):
            named = sorted({result.model for result in results})
            more = f", … ({len(named)})" if len(named) > 6 else ""
            here = {name: each for each in self.models for name in self._published_as(each)}
            near = {each: get_close_matches(each.casefold(), here, 1, 0.6) for each in named}
            alike = [f"{each} is near models.{here[own[0]]}" for each, own in near.items() if own]
            raise UserError(
                f"score.published: none of its results is of a checkpoint of this study. They name "
                f"{', '.join(named[:6])}{more}; "
                f"{''.join(f'{each}; ' for each in alike[:3])}"
                "if one is a model here, say so (published_as)"
            )
        chosen = {key: one_each(own, self.score.several) for key, own in found.items()}
        demand_one_scale(result for own in chosen.values() for result in own)
        return chosen

    def _published_as(self, model: str) -> dict[str, str | None]:
        """Names of a model in files of others, in lower case; see `published_names`."""
        names = self.models[model].published_names()
        return {model.casefold(): None} | {each.casefold(): at for each, at in names.items()}

    def headline(self, modality: Modality) -> tuple[str, str | None]:
        """The score and metric that the coupling of models of a modality is correlated with."""
        if modality == "image" and self.score.test and self._scored_on_images():
            return "test", self.score.test_metric
        return self.score.name, self.score.metric

    def _scored_on_images(self) -> bool:
        return any(
            isinstance(model, TrainedModel) and model.takes == "image"
            for model in self.models.values()
        )

    def _unpaired(self) -> list[str]:
        """Models without a dataset, and datasets without a model."""
        found = []
        for name, model in self.models.items():
            if not self.datasets_of(name):
                found.append(f"models.{name}: it takes {model.takes}s, and no dataset holds any")
        for name, dataset in self.datasets.items():
            if dataset.holds not in self.modalities():
                found.append(f"datasets.{name}: it holds {dataset.holds}s, and no model takes any")
        return found

    def inconsistencies(self) -> list[str]:
        """Values that are right by themselves and wrong together."""
        found = self._unpaired()
        if self.extract.k and self.reduce.k[-1] > self.extract.k:
            found.append(
                f"reduce.k: {self.reduce.k[-1]} is larger than extract.k = {self.extract.k}"
            )
        for name, needed in kept_for(self.reduce.variants).items():
            given = getattr(self.extract, name)
            if set(needed) - set(given) if isinstance(needed, list) else needed and not given:
                said = json.dumps(given)
                found.append(f"extract.{name}: {said}, but a variant in reduce.variants needs it")
        for step, section in (("tokenwise", self.tokenwise), ("damage", self.damage)):
            found += [
                f"{step}.datasets: no such dataset{did_you_mean(name, self.datasets)}"
                for name in (section.datasets if section else [])
                if name not in self.datasets
            ]
        found += self._misnamed_arms()
        for k in self.damage.k if self.damage else []:
            if k not in self.reduce.k:
                found.append(f"damage.k: {k} is not in reduce.k = {self.reduce.k}")
        if self.correlate.k not in self.reduce.k:
            found.append(f"correlate.k: {self.correlate.k} is not in reduce.k = {self.reduce.k}")
        if self.correlate.variant not in self.reduce.variants:
            found.append(f"correlate.variant: {self.correlate.variant} is not in reduce.variants")
        recorded = {name for model in self.models.values() for name in model.scores}
        scores = {*recorded, *self.score.harness, *(["heldout"] if self.score.heldout else [])}
        scores |= {"training", "gap"} if self.score.gap else set()
        scores |= {"test"} if self.score.test and self._scored_on_images() else set()
        unread = False
        try:
            scores |= {result.score for own in self.published.values() for result in own}
        except UserError as error:
            unread = True
            found.append(str(error))
        hub = self.score.repositories and any(
            isinstance(each, HubModel) for each in self.models.values()
        )
        # What a repository holds is seen later.
        if self.score.name not in scores and not hub and not unread:
            found.append(
                f"score.name: no score {self.score.name!r} is evaluated or recorded"
                f"{did_you_mean(self.score.name, scores) if scores else ''}"
            )
        for name, model in self.models.items():
            for score, recorded_score in model.scores.items():
                known = model.names()
                if recorded_score.checkpoint and recorded_score.checkpoint not in known:
                    found.append(
                        f"models.{name}.scores.{score}.checkpoint: no such checkpoint"
                        f"{did_you_mean(recorded_score.checkpoint, known)}"
                    )
        return found

    def _misnamed_arms(self) -> list[str]:
        """Arms of the experiment that are no populations of this study."""
        if self.intervention is None:
            return []
        known, section = self.populations(), self.intervention
        named = [("control", section.control)]
        for role in ("doses", "shams", "positive_controls"):
            named += [(role, name) for name in getattr(section, role)]
        wrong = [
            f"intervention.{key}: no population{did_you_mean(name, known)}"
            for key, name in named
            if name not in known
        ]
        if not wrong and not section.doses:
            wrong.append(
                "intervention.doses: no population of this study has a penalty on coupling: name "
                "those whose coupling was set"
            )
        return wrong


def _where_unset(section: Section, values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in section.model_fields_set}


def _spellings(model: str) -> list[str]:
    """A model's name in a file, and its last part where it is a directory."""
    last = [model.rstrip("/").rpartition("/")[2]] if model.startswith((".", "/")) else []
    return [each.casefold() for each in (model, *last)]
