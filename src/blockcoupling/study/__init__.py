"""What a study's configuration can say: its sections, their keys and their defaults.

`blockcoupling.config.load_config` reads a file into a `Study` and reports everything wrong with it.
Relative paths are taken from the working directory, as everywhere in Snakemake.
"""

from blockcoupling.study.study import Study as Study
