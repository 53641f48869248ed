"""What was done to the rows of the sources: counts, sentences for a person, and the rows set aside."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from llm4rec.data.columns import unused
from llm4rec.data.files import REJECTED, Table
from llm4rec.errors import InputError


@dataclass(frozen=True)
class Report:
    """The outcome of an ingestion.

    Attributes:
        counts: named counts: events_read, duplicates, rejected, left_out, events, people, items.
        notes: sentences worth saying to the person who asked.
        rejected: rows set aside: file, row (as in `Table.rows`), column (null where the whole row is
            broken) and reason.
    """

    counts: dict[str, int]
    notes: tuple[str, ...]
    rejected: pl.DataFrame


@dataclass
class Sieve:
    """Rows of one table on their way through the checks; bad ones are set aside with a reason.

    Attributes:
        name: the source, for messages.
        frame: the rows still good, their numbers in the column that `row` names.
        n_read: rows read, good and bad.
        row: a name that no column of the source has.
        rejected: the rows set aside so far.
    """

    name: str
    frame: pl.DataFrame
    n_read: int
    row: str
    rejected: list[pl.DataFrame] = field(default_factory=list[pl.DataFrame])

    @classmethod
    def of(cls, table: Table) -> Sieve:
        """Start with what could be read of `table`."""
        n_read = table.frame.height + table.rejected.height
        row = unused("row", {*table.columns, *table.frame.columns})
        frame = table.frame.with_columns(table.rows.alias(row))
        return cls(table.name, frame, n_read, row, [table.rejected] if table.rejected.height else [])

    def drop(self, bad: pl.Series, column: str, reason: pl.Expr | str) -> int:
        """Set aside the rows where `bad` [rows] is true, and say how many they are.

        Args:
            bad: which rows.
            column: the column at fault, as the source calls it.
            reason: why, as an expression over the frame or the same for all.

        Raises:
            InputError: if no row is left.
        """
        count = int(bad.sum())
        if not count:
            return 0
        text = pl.lit(reason) if isinstance(reason, str) else reason
        self.rejected.append(
            self.frame.filter(bad).select(
                file=pl.lit(self.name),
                row=pl.col(self.row).cast(pl.Int64),
                column=pl.lit(column),
                reason=text,
            )
        )
        self.frame = self.frame.filter(~bad)
        self.require_rows()
        return count

    def require_rows(self) -> None:
        """Raise an `InputError` that shows the first reason if no row is left."""
        if self.frame.height:
            return
        first = self.all_rejected().row(0, named=True)
        where = f", column {first['column']!r}" if first["column"] else ""
        raise InputError(
            f"None of the {self.n_read} rows of {self.name} can be used. "
            f"The first fault, in row {first['row']}{where}: {first['reason']}."
        )

    def all_rejected(self) -> pl.DataFrame:
        """Every row set aside so far, by row number."""
        return pl.concat([pl.DataFrame(schema=REJECTED), *self.rejected]).sort("row", maintain_order=True)

    def note(self) -> list[str]:
        """A sentence on what was set aside, empty where nothing was."""
        aside = self.all_rejected()
        if not aside.height:
            return []
        first = aside.row(0, named=True)
        return [
            f"{aside.height} of {self.n_read} rows of {self.name} were set aside; "
            f"the first is row {first['row']}: {first['reason']}."
        ]
