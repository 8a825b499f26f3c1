"""samples/host-vulkan under the validation layer with synchronisation checks, and what it says when it cannot run.

Usage: test_host_vulkan.py PROGRAM PROGRAM_WITHOUT_BARRIERS
"""
import os
import re
import subprocess
import sys
import unittest

PROGRAM, HAZARD = sys.argv[1:]
LAYER = {
    "VK_INSTANCE_LAYERS": "VK_LAYER_KHRONOS_validation",
    "VK_LAYER_ENABLES": "VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT",
}


def run(program, *arguments, **environment):
    result = subprocess.run([program, *arguments], env={**os.environ, **environment},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return result.returncode, result.stdout.decode(), result.stderr.decode()


class HostVulkan(unittest.TestCase):
    def test_agrees_with_the_reference_and_the_layer_is_silent(self):
        code, out, errors = run(PROGRAM, **LAYER)
        self.assertEqual((code, errors), (0, ""), out)
        self.assertRegex(out, r"\Alargest difference from the reference: [0-9.e-]+\nok\n\Z")
        self.assertGreater(float(re.search(r"[0-9][0-9.e-]*", out)[0]), 0)

    def test_the_layer_sees_a_missing_barrier(self):
        _, out, errors = run(HAZARD, **LAYER)
        self.assertIn("SYNC-HAZARD", out + errors)

    def test_device_by_number(self):
        self.assertEqual(run(PROGRAM, "0")[0], 0)
        for number in ("99", "-1", "99999999999999999999"):
            code, out, errors = run(PROGRAM, number)
            self.assertEqual((code, out), (1, ""))
            self.assertIn("no such Vulkan device", errors)

    def test_without_a_driver_it_says_what_to_install(self):
        code, out, errors = run(PROGRAM, VK_ICD_FILENAMES="/nonexistent", VK_DRIVER_FILES="/nonexistent")
        self.assertEqual((code, out), (1, ""))
        self.assertIn("mesa-vulkan-drivers", errors)

    def test_usage(self):
        self.assertEqual(run(PROGRAM, "--help")[::2], (0, ""))
        for arguments in (["first"], ["0x"], [""], ["0", "1"]):
            code, out, _ = run(PROGRAM, *arguments)
            self.assertEqual(code, 1)
            self.assertIn("usage: host-vulkan [DEVICE]", out)


unittest.main(argv=sys.argv[:1])
