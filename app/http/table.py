"""CSV answers (RFC 4180), safe to be opened in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sanic import Request
from sanic.response import HTTPResponse, raw

CSV: Final = "text/csv"
# what a spreadsheet takes for the beginning of a formula (OWASP, "CSV injection")
_FORMULA: Final = re.compile(r"[=+\-@\t\r\n|%]")
# so that Excel reads UTF-8
_MARK: Final = "\ufeff"


def wanted(request: Request, asked: str | None) -> bool:
    """Whether the caller wants CSV: by ``format=csv``, or without ``format`` by its Accept."""
    if asked is not None:
        return asked == "csv"
    return request.headers.get("Accept", "").split(",")[0].split(";")[0].strip().lower() == CSV


def answer(name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> HTTPResponse:
    """A CSV file ``name``.csv with a line of column names."""
    made = io.StringIO(newline="")
    made.write(_MARK)
    writer = csv.writer(made)
    writer.writerow(columns)
    writer.writerows([cell(value) for value in row] for row in rows)
    return raw(
        made.getvalue().encode(),
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="{name}.csv"',
        },
        content_type=f"{CSV}; charset=utf-8",
    )


def cell(value: Any) -> Any:
    """A value for a cell: text that would be a formula gets an apostrophe before it."""
    if isinstance(value, str) and _FORMULA.match(value.lstrip(" ")):
        return f"'{value}"
    return "" if value is None else value
