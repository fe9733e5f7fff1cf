# Every file that is to be there, read off the rules' own outputs. Snakemake does not look behind a
# file that is there: only what is asked for is remade when it is missing.


def everything():
    """Every file that this study makes."""
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
        "prompts": [{"dataset": dataset} for dataset in study.datasets],
        "checkpoint": [
            {"model": model, "step": step}
            for model, section in study.models.items()
            if isinstance(section, TrainedModel)
            for step in section.checkpoints
        ],
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
        "figure": [{"figure": figure} for figure in FIGURES],
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
        file for name, of in whose.items() for file in made_by(getattr(rules, name), of)
    ]
