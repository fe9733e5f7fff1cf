"""What the results of one study were made from that is not one thing: code, revisions of models."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from blockcoupling.catalog.entries import MADE

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

_SHOWN = 12  # characters of a commit


def mixed(catalog: Catalog) -> list[str]:
    """Return a sentence for each thing that is not the same for all results.

    Artifacts made by several versions of the code, with the number of each; names of revisions on
    the hub (such as `main`) that stood for several commits.
    """
    versions: Counter[str] = Counter()
    commits: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in catalog:
        about = catalog.entries[name].metadata
        made = about.get(MADE)
        if not isinstance(made, Mapping):
            continue  # entered by hand
        versions[_version(made.get("code"))] += 1
        model = made.get("model")
        if about["kind"] == "model" and isinstance(model, Mapping):
            asked, commit = model.get("revision_requested"), str(model.get("revision"))
            if asked and asked != commit:
                which = f"{model.get('name')} {model.get('checkpoint')}"
                commits[str(model.get("id")), str(asked)][commit].append(which)
    found = []
    if len(versions) > 1:
        shown = "; ".join(f"{version}: {count}" for version, count in versions.most_common())
        found.append(
            f"results were made by {len(versions)} versions of the code (number of artifacts): "
            f"{shown}"
        )
    for (repository, asked), of in sorted(commits.items()):
        if len(of) > 1:
            shown = "; ".join(f"{each[:_SHOWN]}: {', '.join(who)}" for each, who in of.items())
            found.append(
                f"the revision {asked!r} of {repository} stood for {len(of)} commits, because it "
                f"moved between the jobs: {shown}; name a commit as `revision`"
            )
    return found


def _version(code: Any) -> str:
    """The code that made an artifact, as its entry has it."""
    about = code if isinstance(code, Mapping) else {}
    commit = [f"commit {str(about['commit'])[:_SHOWN]}"] if about.get("commit") else []
    changed = ["changed since"] if about.get("changed") else []
    return ", ".join([f"blockcoupling {about.get('version', 'unknown')}", *commit, *changed])
