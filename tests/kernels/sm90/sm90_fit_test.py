"""That tools/fit_sm90.py fits the cost models that are built: by today's constants its estimates are
those of the C++, for every candidate of every cell it is given.

    sm90_fit_test.py SM90_COST_DRIVER FILE...
"""

import json
import subprocess
import sys
import unittest

import fit_sm90
import numpy as np

DRIVER, FILES = sys.argv[1], sys.argv[2:]


class Sm90Fit(unittest.TestCase):
    def test_models_are_the_built_ones(self) -> None:
        timings = fit_sm90.Timings(FILES)
        cells = "\n".join(" ".join(map(str, key)) for key in timings.keys)
        run = subprocess.run([DRIVER], input=cells, capture_output=True, text=True, check=True)
        built = {}
        for line in run.stdout.splitlines():
            cell, name, us = line.split("|")
            built[tuple(map(int, cell.split())), fit_sm90.short(name)] = float(us)
        compared = 0
        for cell, name, us in zip(timings.cell, timings.names, timings.estimate(fit_sm90.START)):
            key = (timings.keys[cell], name)
            if key in built:  # some candidates of the day are none any more
                self.assertAlmostEqual(us / built[key], 1, delta=1e-6, msg=str(key))
                compared += 1
        self.assertGreater(compared, 0.95 * len(timings.us))

    def test_the_fastest_choice_loses_nothing(self) -> None:
        timings = fit_sm90.Timings(FILES[:1])
        used = np.ones(len(timings.us), bool)
        fastest = timings.chosen(timings.us, used)
        np.testing.assert_array_equal(timings.us[fastest], timings.best)
        self.assertEqual(timings.off(timings.us, used), 0)
        with open(FILES[0]) as file:
            self.assertEqual(len(timings.keys), len(json.load(file)["cells"]))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
