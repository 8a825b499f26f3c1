"""Counts the results of a meson test run; the last line is the total.

Usage: summary.py BUILD_FOLDER [LOG_NAME]
"""
import json
import os
import sys

PASSED = ("OK", "EXPECTEDFAIL")


def why_skipped(test):
    """A test that skips says why in the last line it prints."""
    lines = [line.strip() for key in ("stdout", "stderr") for line in test.get(key, "").splitlines()]
    return next((line for line in reversed(lines) if line), "it does not say why")


def main():
    path = os.path.join(sys.argv[1], "meson-logs", (sys.argv + ["testlog"])[2] + ".json")
    passed = failed = skipped = 0
    try:
        with open(path, encoding="utf-8") as file:
            tests = [json.loads(line) for line in file if line.strip()]
    except OSError:
        tests = []
    for test in tests:
        if test["result"] in PASSED:
            passed += 1
        elif test["result"] == "SKIP":
            skipped += 1
            print(f"skipped: {test['name']}: {why_skipped(test)}")
        else:
            failed += 1
            print(f"failed: {test['name']}: {test['result']}")
    if not tests:
        failed = 1
        print("failed: no test ran")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
