# Every file that is to be there, read off the rules' own outputs. Snakemake does not look behind a
# file that is there: only what is asked for is remade when it is missing.


# Up to the catalog of what was measured.
MEASURED = (
    *("prompts", "checkpoint", "image_checkpoint", "weights", "model", "score"),
    *("weight_spectra", "extract", "reduce", "tokenwise", "damage"),
    "catalog_measurements",
)


def everything(*only):
    """Every file that this study makes, or that those rules alone make."""
    models = [
        {"model": model, "checkpoint": checkpoint}
        for model in study.models
        for checkpoint in study.checkpoints(model)
    ]
    names = ("model", "checkpoint", "dataset")
    measurements = [dict(zip(names, job)) for job in study.jobs()]
    of_tokens = [dict(zip(names, job)) for job in study.token_jobs()]
    of_damage = [dict(zip(names, job)) for job in study.damage_jobs()]
    whose = {
        "prompts": [{"dataset": dataset} for dataset in DATASETS],
        **{
            keeper: [
                {"model": model, unit(section.train): number}
                for model, section in study.models.items()
                if isinstance(section, TrainedModel) and keeps(section) == keeper
                for number in section.checkpoints
            ]
            for keeper in ("checkpoint", "image_checkpoint")
        },
        "weights": models,
        "model": models,
        "score": models,
        "weight_spectra": models if study.weight_spectra else [],
        "extract": measurements,
        "reduce": measurements,
        "tokenwise": of_tokens,
        "damage": of_damage,
        "damage_statistics": [{}] if of_damage else [],
        "intervention": [{}] if study.intervention else [],
        "figure": [{"figure": figure} for figure in figures_of(MODALITIES[0])],
        "figure_of_images": (
            [{"figure": figure} for figure in figures_of("image")] if MIXED else []
        ),
        "correlate_images": [{}] if MIXED else [],
        **dict.fromkeys(["correlate", "costs", "report"], [{}]),
        **dict.fromkeys(
            [
                "catalog_measurements",
                "catalog_statistics",
                "catalog_figures",
                "catalog",
            ],
            [{}],
        ),
    }
    return [
        file
        for name, of in whose.items()
        if not only or name in only
        for file in made_by(getattr(rules, name), of)
    ]
