"""What a study's configuration can say: its sections, their keys and their defaults.

`blockcoupling.study.check.load_config` reads a file into a `Study` and reports everything wrong.
Relative paths are taken from the working directory, as everywhere in Snakemake.

Nothing is imported here, so that names of choices and variants do not need pydantic.
"""
