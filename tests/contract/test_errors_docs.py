"""docs/errors.md is the table of serving/errors.py."""

from pathlib import Path

import grpc

from serving.client.fault import RETRYABLE
from serving.errors import Kind

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"


def documented():
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return {cells[0].strip(" `"): tuple(cell.strip() for cell in cells[1:4]) for cells in rows}


def test_the_page_has_every_code_and_no_other():
    assert set(documented()) == {kind.row.code for kind in Kind}


def test_the_page_says_what_the_table_says():
    table = {kind.row.code: (str(kind.row.http), kind.row.grpc, "yes" if kind.row.retryable else "no") for kind in Kind}
    assert documented() == table


def test_every_status_is_one_of_grpc_s():
    assert {kind.row.grpc for kind in Kind} <= {status.name for status in grpc.StatusCode}


def test_the_client_retries_what_the_table_says():
    assert {code for code, cells in documented().items() if cells[2] == "yes"} == RETRYABLE - {"unreachable"}
