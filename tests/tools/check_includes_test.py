"""Proves that tools/check_includes.py catches what it is for."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import check_includes  # noqa: E402

DESIGN = """
```include-table
base        ->
formats     -> base{check.h}
ops         -> formats base
kernels/ref -> ops
kernels/cpu -> ops
kernels/vendor/* -> ops kernels/cpu
dispatch    -> ops kernels/*{list.h}
engine      -> dispatch
server      -> engine
apps        -> server{*}
tests/fuzz  -> engine
```
"""

HEADERS = (
    "base/check.h base/log.h formats/e2m1.h ops/gemm.h kernels/ref/list.h kernels/ref/gemm.h "
    "kernels/cpu/list.h kernels/vendor/a/list.h kernels/vendor/a/gemm.h dispatch/select.h engine/engine.h server/http.h"
).split()


class CheckIncludesTest(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = Path(scratch.name)
        self.write("docs/design.md", DESIGN)
        for header in HEADERS:
            self.write(f"src/{header}", "#pragma once\n")

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def check(self, path: str, include: str) -> list[str]:
        once = "#pragma once\n" if path.endswith(".h") else "\n"
        self.write(path, f"{once}#include {include}\n")
        found = check_includes.Checker(self.root).violations()
        (self.root / path).unlink()
        return found

    def assert_allowed(self, path: str, include: str) -> None:
        self.assertEqual(self.check(path, include), [])

    def assert_refused(self, path: str, include: str, reason: str) -> None:
        found = self.check(path, include)
        self.assertEqual(len(found), 1, found)
        self.assertTrue(found[0].startswith(f"{path}:2: "), found[0])
        self.assertIn(reason, found[0])

    def test_a_folder_may_include_itself_and_what_stands_behind_it(self) -> None:
        self.assert_allowed("src/ops/x.cc", '"ops/gemm.h"')
        self.assert_allowed("src/ops/x.cc", '"base/log.h"')
        self.assert_allowed("src/engine/x.cc", '"formats/e2m1.h"')

    def test_never_back(self) -> None:
        self.assert_refused("src/ops/x.cc", '"dispatch/select.h"', "ops may not include dispatch")
        self.assert_refused("src/base/x.cc", '"formats/e2m1.h"', "base may not include formats")
        self.assert_refused("src/kernels/cpu/x.cc", '"kernels/ref/gemm.h"', "may not include")

    def test_named_files_only(self) -> None:
        self.assert_allowed("src/formats/x.h", '"base/check.h"')
        self.assert_refused("src/formats/x.h", '"base/log.h"', "formats may not include base")
        self.assert_allowed("src/dispatch/x.cc", '"kernels/cpu/list.h"')
        self.assert_refused("src/dispatch/x.cc", '"kernels/ref/gemm.h"', "may not include")

    def test_a_row_for_many_folders(self) -> None:
        self.assert_allowed("src/dispatch/x.cc", '"kernels/vendor/a/list.h"')
        self.assert_refused("src/dispatch/x.cc", '"kernels/vendor/a/gemm.h"', "may not include")
        self.assert_allowed("src/kernels/vendor/a/x.cc", '"kernels/vendor/a/gemm.h"')
        self.assert_allowed("src/kernels/vendor/a/x.cc", '"kernels/cpu/list.h"')
        self.assert_refused("src/kernels/vendor/b/x.cc", '"kernels/vendor/a/gemm.h"', "may not")
        self.assert_refused("src/kernels/cpu/x.cc", '"kernels/vendor/a/list.h"', "may not include")

    def test_nothing_behind_named_files(self) -> None:
        self.assert_allowed("apps/x.cc", '"server/http.h"')
        self.assert_refused("apps/x.cc", '"engine/engine.h"', "apps may not include engine")

    def test_angle_brackets_are_no_way_around(self) -> None:
        self.assert_refused("src/base/x.cc", "<formats/e2m1.h>", "base may not include formats")
        self.assert_allowed("src/base/x.cc", "<vector>")

    def test_paths_are_written_in_full(self) -> None:
        self.assert_refused("src/base/x.cc", '"check.h"', "not a path from include/ or src/")
        self.assert_refused("src/base/x.cc", '"../ops/gemm.h"', "not a path")

    def test_a_folder_outside_the_table_is_refused(self) -> None:
        self.assert_refused("src/extra/x.cc", '"base/check.h"', "not in the include table")

    def test_public_headers(self) -> None:
        self.assert_allowed("include/nibble/x.h", '"nibble/types.h"')
        self.assert_refused("include/nibble/x.h", '"base/check.h"', "public headers only")
        for header in ("cuda_runtime.h", "torch/extension.h", "cublasLt.h", "ATen/ATen.h"):
            self.assert_refused("include/nibble/x.h", f"<{header}>", "no CUDA or torch")

    def test_json_stays_out_of_headers(self) -> None:
        self.assert_allowed("src/ops/x.cc", "<nlohmann/json.hpp>")
        self.assert_allowed("src/ops/x.h", "<nlohmann/json_fwd.hpp>")
        self.assert_refused("src/ops/x.h", "<nlohmann/json.hpp>", "slow to compile")

    def test_tests_mirror_the_folder_they_test(self) -> None:
        self.write("tests/ops/cases.h", "#pragma once\n")
        self.assert_allowed("tests/ops/x_test.cc", '"ops/gemm.h"')
        self.assert_allowed("tests/ops/x_test.cc", '"tests/ops/cases.h"')
        self.assert_allowed("tests/fuzz/x_fuzz.cc", '"base/check.h"')
        self.assert_refused("tests/ops/x_test.cc", '"dispatch/select.h"', "may not include dispatch")
        self.assert_refused("src/ops/x.cc", '"tests/ops/cases.h"', "only tests")

    def test_headers_guard_themselves(self) -> None:
        self.write("src/ops/x.h", "int x();\n")
        found = check_includes.Checker(self.root).violations()
        self.assertEqual(found, ["src/ops/x.h:1: has no #pragma once"])

    def test_a_broken_table_is_an_error(self) -> None:
        for text, message in (
            ("no table", "no ```include-table"),
            ("```include-table\nbase\n```\n", "no '->'"),
            ("```include-table\nbase -> nowhere\n```\n", "unknown 'nowhere'"),
        ):
            with self.assertRaisesRegex(ValueError, message):
                check_includes.Table(text)


if __name__ == "__main__":
    unittest.main()
