#!/bin/sh
# Builds everything and runs the tests: sh tests/run.sh
#
# Ends with one line, "N passed, M failed, K skipped", and status 0 when nothing
# failed. RATPLUS_BUILD names the build folder (default build-tests),
# RATPLUS_SETUP adds options to meson setup, RATPLUS_TEST to meson test, whose log
# is then named RATPLUS_LOG.
set -u
cd "$(dirname "$0")/.." || exit 1
. samples/packages.sh
build=${RATPLUS_BUILD:-build-tests}

give_up() {
    echo "$1" >&2
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
}

need_packages $build_packages $sample_packages $test_packages || give_up "Packages are missing."
if [ ! -f "$build/build.ninja" ]; then
    meson setup --werror ${RATPLUS_SETUP:-} "$build" >"$build.log" 2>&1 || {
        cat "$build.log" >&2
        give_up "meson setup failed."
    }
    rm -f "$build.log"
fi
echo "Building in $build"
ninja -C "$build" --quiet || give_up "The build failed."
meson test -C "$build" --no-rebuild --print-errorlogs ${RATPLUS_TEST:-}
python3 tests/summary.py "$build" ${RATPLUS_LOG:-}
