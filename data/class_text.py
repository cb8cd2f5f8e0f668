"""The text of a class CSV (headed `image,label`), in which labels can be changed; every other byte stays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cli.files import UserError
from data.csv_files import read_table

FIELD = re.compile(r'("(?:[^"]|"")*"[^,\r\n]*|[^,\r\n]*)(,|\r\n|\n|\r|\Z)')  # a field, and what ends it
IMAGE_NAMES = ("image", "img")


class ClassText:
    """A class CSV as text.

    Attributes:
        labels: what stands in the column `label`, list of N str without quotes and outer spaces, in the order of the rows.
    """

    def __init__(self, csv: Path | str) -> None:
        """Read a CSV.

        Raises:
            UserError: it is unreadable, has no rows, or another header.
        """
        read = read_table(csv, None)
        if read.shape[1] < 2:
            raise UserError(f"{csv}: needs a header `image,label` and rows below it")
        if read.empty:
            raise UserError(f"{csv}: has a header but no rows")
        if not isinstance(read.index, pd.RangeIndex):  # pandas takes what is too much for an index
            raise UserError(f"{csv}: not a readable CSV (rows have more fields than the header; name all columns)")
        self._text = Path(csv).read_bytes().decode("utf-8")
        records = _records(self._text)
        titles = [self._text[start:end].strip('\ufeff" ').lower() for start, end in records[0][:2]]
        if titles[0] not in IMAGE_NAMES or titles[1] != "label":
            raise UserError(f"{csv}: headed {','.join(titles)}; a CSV of class labels is headed image,label")
        short = [row for row, fields in enumerate(records[1:], 2) if len(fields) < 2]
        if short:
            raise UserError(f"{csv}: row {short[0]} has no label")
        self._spans = [fields[1] for fields in records[1:]]
        self.labels = [_value(self._text[start:end]).strip() for start, end in self._spans]
        if self.labels != [label.strip() for label in read.iloc[:, 1]]:
            raise UserError(f"{csv}: its quotes can be read in two ways; write it anew with a spreadsheet or pandas")

    def with_labels(self, labels: Sequence[str]) -> str:
        """The text with N other labels; an unchanged label keeps its quotes and spaces."""
        pieces, done = [], 0
        for (start, end), old, new in zip(self._spans, self.labels, labels):
            pieces += [self._text[done:start], self._text[start:end] if new == old else _spelt(self._text[start:end], new)]
            done = end
        return "".join([*pieces, self._text[done:]])


def _records(text: str) -> list[list[tuple[int, int]]]:
    """(start, end) of each field of each line that is not blank."""
    records: list[list[tuple[int, int]]] = []
    fields: list[tuple[int, int]] = []
    position = 0
    while position < len(text) or fields:
        found = FIELD.match(text, position)
        assert found  # it matches anything
        fields.append(found.span(1))
        position = found.end()
        if found[2] != ",":
            if len(fields) > 1 or text[slice(*fields[0])].strip():
                records.append(fields)
            fields = []
    return records


def _value(field: str) -> str:
    """What a field says, its quotes taken off."""
    if not field.startswith('"'):
        return field
    end = field.rindex('"')
    return field[1:end].replace('""', '"') + field[end + 1:]


def _spelt(field: str, label: str) -> str:
    """A label as a field, with the quotes and outer spaces of the field that it replaces."""
    quoted = '"' + label.replace('"', '""') + '"'
    if field.startswith('"'):
        return quoted
    spaces = re.fullmatch(r"(\s*)(.*?)(\s*)", field, re.S)
    assert spaces  # it matches anything
    return quoted if re.search(r'[,"\r\n]', label) else spaces[1] + label + spaces[3]
