"""The text of a class CSV (headed `image,label`), read so that labels can be changed and every other byte stays."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cli.files import UserError
from data.classification import MOST_CLASSES, label_number, numbers_of, positions_are_labels
from data.csv_files import read_table
from data.legend import FILE_NAME

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
        if not isinstance(read.index, pd.RangeIndex):  # pandas takes what is too much for an index
            raise UserError(f"{csv}: not a readable CSV (rows have more fields than the header; name all columns)")
        if read.shape[1] < 2 or read.empty:
            raise UserError(f"{csv}: needs a header `image,label` and rows below it")
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


def class_numbers(csv: Path | str, labels: Sequence[str], names: Sequence[str] | None, num_classes: int | None = None
                  ) -> tuple[np.ndarray, int]:
    """Class numbers of labels, by the rule of `data.classification.numbers_of`.

    Args:
        names: of the classes, or None: all labels are numbers.
        num_classes: C; None: that of the names, else the largest label + 1.

    Returns:
        (int64 (N,), C)

    Raises:
        UserError: a label is neither, or there are no two classes.
    """
    if names is not None and num_classes not in (None, len(names)):
        raise UserError(f"--num-classes {num_classes}: {FILE_NAME} names {len(names)} classes")
    number_of = None if names is None else numbers_of(list(names))
    found = (label_number(label, number_of) for label in labels)
    numbers = [-1 if number is None else number for number in found]
    count = len(names) if names is not None else num_classes or max(numbers, default=0) + 1
    wrong = [row for row, number in enumerate(numbers) if not 0 <= number < count]
    if wrong:
        raise UserError(f"{csv}: {len(wrong)} labels are not {_expected(names, count, num_classes)}, first row {wrong[0] + 2}: "
                        f"{labels[wrong[0]]!r}")
    if count < 2:
        raise UserError(f"{csv}: all labels are of one class; two or more are needed (--num-classes)")
    if names is None and count > MOST_CLASSES:
        raise UserError(f"{csv}: label {count - 1} makes {count} classes; correct it, or name the classes in a {FILE_NAME}")
    return np.array(numbers, dtype=np.int64), count


def _expected(names: Sequence[str] | None, count: int, num_classes: int | None) -> str:
    """What labels have to be, for a message; arguments as of `class_numbers`."""
    if names is None:
        return f"whole numbers in 0..{count - 1}" + ("" if num_classes else f" (put a {FILE_NAME} beside the CSV to use names)")
    positions = f", nor numbers below {count}" if positions_are_labels(names) else ""
    return f"classes that {FILE_NAME} names{positions}"
