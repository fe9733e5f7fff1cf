"""One entry of a catalog: its metadata, its path, and its content when it is read."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from intake.readers.datatypes import BaseData
from intake.readers.readers import BaseReader

from blockcoupling.catalog.formats import FORMATS
from blockcoupling.errors import MeasurementError, UserError
from blockcoupling.store.checksums import digest

AGAIN = "run the study again, which makes what is missing"


class Artifact(BaseReader):
    """An Intake reader of one artifact, which first checks that it is what was entered.

    ``read()`` gives a lazy :class:`xarray.Dataset` for a Zarr store, a DataFrame for Parquet and
    JSON lines, a dict for JSON, text for HTML and bytes for a figure.
    """

    @property
    def where(self) -> str:
        """Its path, or an fsspec url."""
        url: str = self.data.url
        return url

    @property
    def suffix(self) -> str:
        """The ending of its name, which decides the format."""
        return PurePosixPath(self.where).suffix

    def _read(self, data: BaseData, name: str, **options: Any) -> Any:
        where = data.url
        self.check(name)
        try:
            return FORMATS[self.suffix].read(where, self.metadata["kind"], **options)
        except (UserError, MeasurementError):
            raise
        except Exception as error:  # libraries raise anything over a damaged file
            reason = " ".join(str(error).split()) or type(error).__name__
            asked = {key: value for key, value in options.items() if value is not None}
            chosen = f" with {asked}" if asked else ""
            remedy = f"if the file is damaged, remove it and {AGAIN}"
            if "://" in where:
                remedy = "check that its server still answers, then try again"
            raise UserError(
                f"{name}: {where} cannot be read{chosen} ({reason[:300]}); {remedy}"
            ) from error

    def check(self, name: str) -> None:
        """Refuse a local artifact that is gone, or is not what was entered in the catalog.

        Args:
            name: of its entry, for the message.

        Raises:
            UserError: it is not as it was.
        """
        if "://" not in self.where:
            self._demand_present(name, Path(self.where))
            self._demand_unchanged(name, Path(self.where))

    def _demand_present(self, name: str, path: Path) -> None:
        directory = FORMATS[self.suffix].directory
        if not path.exists():
            raise UserError(f"{name}: {path} is gone; {AGAIN}")
        if not (path.is_dir() if directory else path.is_file()):
            raise UserError(f"{name}: {path} is not a {'store' if directory else 'file'}")

    def _demand_unchanged(self, name: str, path: Path) -> None:
        entered = self.metadata.get("digest")
        if entered is not None and digest(path) != entered:
            raise UserError(
                f"{name}: {path} is not what was entered in the catalog: it was damaged or changed "
                f"since; remove it and {AGAIN}"
            )
