#!/bin/sh
# AMD's driver compiles without its hardware: every pipeline must become machine
# code for three generations. Usage: radv.sh BUILD; ends with a total line.
set -u
cd "$(dirname "$0")/.." || exit 1
passed=0 failed=0
icd=$(ls /usr/share/vulkan/icd.d/radeon_icd.*.json 2>/dev/null | head -n 1)
if [ -z "$icd" ]; then
    echo "skipped: the driver RADV is not installed"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
logs=$(mktemp -d) || exit 1
trap 'rm -r "$logs"' EXIT
# At the same time: each is one thread.
for family in gfx1100 navi21 vega20; do
    {
        VK_ICD_FILENAMES=$icd RADV_FORCE_FAMILY=$family \
            timeout 1200 "$1/tests/pipelines/test-pipelines" >"$logs/$family" 2>&1
        echo $? >"$logs/$family.status"
    } &
done
wait
for family in gfx1100 navi21 vega20; do
    cat "$logs/$family"
    if [ "$(cat "$logs/$family.status")" -eq 0 ]; then
        passed=$((passed + 1))
    else
        echo "failed: $family"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
