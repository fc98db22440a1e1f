"""Proves that tools/update_tables.py fills tables, and that --check catches a typed figure."""

import contextlib
import io
import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import update_tables  # noqa: E402

RESULT = {
    "device": "CPU",
    "cpu": "Some Chip, 2 cores",
    "commit": "0123456789abcdef",
    "command": "make demo",
    "date": "2026-01-02",
    "rows": [
        {"what": "open", "seconds": 0.12345, "count": 7},
        {"what": "a|b", "seconds": 1234.5, "count": None},
    ],
}

TABLE = """\
| what | seconds |
|---|--:|
| open | 0.123 |
| a\\|b | 1234 |

CPU, Some Chip, 2 cores; 2026-01-02, commit 0123456789: `make demo`
"""


class UpdateTablesTest(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = Path(scratch.name)
        (self.root / "docs").mkdir()
        (self.root / "bench/results").mkdir(parents=True)
        (self.root / "bench/results/demo.json").write_text(json.dumps(RESULT), encoding="utf-8")
        self.page = self.root / "README.md"

    def run_tool(self, *options: str) -> tuple[int, str]:
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            code = update_tables.main([*options, str(self.root)])
        return code, errors.getvalue()

    def test_fills_the_named_columns_and_keeps_the_rest(self) -> None:
        self.page.write_text("a\n<!-- table: demo what seconds -->\nold\n<!-- end -->\nb\n")
        self.assertEqual(self.run_tool(), (0, ""))
        expected = f"a\n<!-- table: demo what seconds -->\n{TABLE}<!-- end -->\nb\n"
        self.assertEqual(self.page.read_text(), expected)
        self.assertEqual(self.run_tool("--check"), (0, ""))

    def test_all_columns_by_default(self) -> None:
        self.page.write_text("<!-- table: demo -->\n<!-- end -->\n")
        self.assertEqual(self.run_tool()[0], 0)
        self.assertIn("| open | 0.123 | 7 |\n| a\\|b | 1234 | - |\n", self.page.read_text())

    def test_check_catches_a_typed_figure_and_changes_nothing(self) -> None:
        self.page.write_text("<!-- table: demo -->\n<!-- end -->\n")
        self.run_tool()
        typed = self.page.read_text().replace("0.123", "0.099")
        self.page.write_text(typed)
        code, errors = self.run_tool("--check")
        self.assertEqual(code, 1)
        self.assertIn("README.md differs", errors)
        self.assertEqual(self.page.read_text(), typed)

    def test_malformed_input_is_named(self) -> None:
        for page, message in (
            ("<!-- table: demo -->\nno end\n", "no <!-- end -->"),
            ("<!-- table: gone -->\n<!-- end -->\n", "gone.json"),
            ("<!-- table: demo typo -->\n<!-- end -->\n", "no row has the column 'typo'"),
        ):
            self.page.write_text(page)
            code, errors = self.run_tool()
            self.assertEqual(code, 1)
            self.assertIn(message, errors)

    def test_a_result_must_say_where_it_comes_from(self) -> None:
        self.page.write_text("<!-- table: demo -->\n<!-- end -->\n")
        for key in update_tables.REQUIRED:
            partial = {k: v for k, v in RESULT.items() if k != key}
            (self.root / "bench/results/demo.json").write_text(json.dumps(partial))
            code, errors = self.run_tool()
            self.assertEqual(code, 1)
            self.assertIn(f"'{key}' is missing", errors)


if __name__ == "__main__":
    unittest.main()
