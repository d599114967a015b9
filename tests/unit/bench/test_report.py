import json

from serving.bench import report
from serving.bench.figures import Result, Series, Table, Verdict

FOUND = Result(
    "s1", "S1: sessions",
    [Verdict("p50", 9.0, 10.0, "<=", "ms"), Verdict("rate", 0.5, 0.75, ">=", "x", 2, "5 of 10")],
    [Table("Clicks", ("K", "ms"), [("1", "9.0"), ("8", "60.0")])],
    [Series("Click to mask", "users", "ms", [1, 8], {"p50": [9.0, 60.0]})],
    ["fastapi wins the first mask."],
)  # fmt: skip


def test_a_page_says_what_was_judged_and_where(tmp_path):
    saved = tmp_path / "2026-01-01.json"
    report.save(saved, [FOUND], {"processor": "a CPU"}, "medserve bench s1", {"repeats": 3})
    text = report.write_page(saved, "Benchmark").read_text()
    assert "`medserve bench s1`" in text
    assert "| processor | a CPU |" in text
    assert "## Judged: 1 of 2 pass" in text
    assert "| s1 | rate | >= 0.75 x | 0.50 x | **MISS** | 5 of 10 |" in text
    assert "| K | ms |\n| --- | --- |\n| 1 | 9.0 |" in text
    assert "fastapi wins the first mask." in text
    results, page = report.load_page(saved)
    assert results == [FOUND]
    assert page["options"] == {"repeats": 3}


def test_pictures_are_named_in_the_page():
    page = {"command": "c", "machine": {}, "options": {}}
    text = report.markdown([FOUND], page, "B", {("s1", "Click to mask"): "b-s1-0.svg"})
    assert "![Click to mask](b-s1-0.svg)" in text
    assert "![" not in report.markdown([FOUND], page, "B", {})


def test_the_json_is_plain(tmp_path):
    report.save(tmp_path / "a" / "b.json", [FOUND], {}, "c", {})
    assert json.loads((tmp_path / "a" / "b.json").read_text())["results"][0]["verdicts"][0]["what"] == "p50"
