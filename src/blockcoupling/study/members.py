"""The members of a study's populations, with the values that differ between them."""

from blockcoupling.config.models import TrainedModel
from blockcoupling.config.populations import FACTORS
from blockcoupling.config.study import Study
from blockcoupling.wording import aligned


def members_table(study: Study) -> str:
    """A table for each population, a line for each member; empty if the study has none."""
    populations: dict[str, dict[str, dict[str, object]]] = {}
    for name, section in study.models.items():
        if isinstance(section, TrainedModel) and section.population is not None:
            factors = section.facts.get(FACTORS, {})
            populations.setdefault(section.population, {})[name] = factors
    return "\n\n".join(_table(name, members) for name, members in populations.items())


def _table(population: str, members: dict[str, dict[str, object]]) -> str:
    keys = list(dict.fromkeys(key for factors in members.values() for key in factors))
    rows = [["", *keys]]
    rows += [[name, *(str(f.get(key, "")) for key in keys)] for name, f in members.items()]
    return "\n".join([f"{population}: {len(members)} models", *aligned(rows)])
