#!/bin/sh
# An unmodified llama.cpp, in a Debian sid root, with the ggml backend of this
# tree. RATPLUS_SID names a root with /proc and /dev; without it one is made, as
# root, under .cache/ and kept. Ends with a total line.
set -u
cd "$(dirname "$0")/../../.." || exit 1
# What is mounted here is seen by nobody else, and gone at the end however it comes.
if [ "$(id -u)" -eq 0 ] && [ -z "${RATPLUS_MOUNTS:-}" ]; then
    RATPLUS_MOUNTS=own exec unshare --mount sh tests/hosts/llama/run.sh
fi
. tests/hosts/llama/root.sh
passed=0 failed=0 skipped=0
check() {
    title=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "passed: $title"
    else
        failed=$((failed + 1))
        echo "failed: $title"
    fi
}

if ! sid_root || ! sid_install || ! sid_enter; then
    echo "skipped: $sid_why"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi

folder=/ratplus/${build#"$PWD/"}
# inside VULKAN_DRIVER COMMAND
inside() {
    chroot "$sid" sh -c "cd /ratplus/tests/hosts/llama && VK_ICD_FILENAMES=$1 BUILD=$folder . ./inside.sh; $2"
}

check 'the backend builds without a warning' inside /none build
check 'another version of ggml is refused in one line, and the host goes on' inside /none refused

# Without Vulkan the reference device runs; all cases of few queries.
check 'an unmodified llama.cpp lists the reference' inside /none "listed reference"
check "ggml's own tests of SET_ROWS, reference" inside /none 'operations SET_ROWS . 60'
check "ggml's own tests of FLASH_ATTN_EXT, reference" inside /none \
    "operations FLASH_ATTN_EXT 'kv=(113|512),nb=(1|3),' 340"
check 'greedy text is that of the CPU, reference' inside /none 'same_text f16'
check 'and so with a quantised cache, which the host runs' inside /none 'same_text q8_0'

check 'a dense policy says what the CPU does' inside /none dense_policy
heads='{"layers": "1-2", "heads": 1, "variant": "d4"}' beyond='{"layers": "3-90", "variant": "d2"}'
apart='{"default": "streamw24s4:d8w16", "rules": [{"layers": 0, "heads": 0, "variant": "dense"}]}'
choosing='{"default": "moba16k3:quest48p8g", "rules": [{"layers": 1, "heads": 1, "variant": "d8w16"}]}'
for policy in '{"default": "d16w64s2"}' '{"default": "streamw32s4"}' "$apart" \
    "{\"default\": \"d8w16\", \"rules\": [$heads, $beyond]}" '{"default": "quest32p8"}' \
    '{"default": "moba16k2"}' "$choosing"; do
    check "text and counts are those of NumPy under $policy" inside /none "as_reference '$policy'"
done
check 'a bad policy is refused with its place, and attention stays dense' inside /none refused_policies
check 'kinds that a host has no cache for are dense, and counted' inside /none dense_instead
check 'quest without memory for its summaries is dense, and counted' inside /none no_memory
check 'summaries of K are made anew when the host turns K in its cache' inside /none turned
check 'after a context shift, where cells are out of order, attention is dense' inside /none shifted
check 'so it is after a cache was loaded from a file' inside /none loaded
check 'a server of two slots follows its policy as it changes' inside /none served
check 'a host asks for the statistics, and keeps its own signal handler' inside /none asked

# Vulkan is SwiftShader, so that the baseline is what is tested.
if manifest=$(sh tests/swiftshader.sh); then
    cp "$(dirname "$manifest")"/* "$build/"
    icd=$folder/$(basename "$manifest")
    check 'an unmodified llama.cpp lists SwiftShader' inside "$icd" 'listed SwiftShader'
    check "ggml's own tests of FLASH_ATTN_EXT, SwiftShader" inside "$icd" \
        "operations FLASH_ATTN_EXT 'hsk=64,hsv=64,.*nr23=.4,1.,kv=512,nb=(1|3),mask=1,sinks=0,max_bias=0.0' 10"
    check 'greedy text is that of the CPU, SwiftShader' inside "$icd" 'same_text f16'
    check 'text and counts are those of NumPy under a policy, SwiftShader' inside "$icd" \
        "as_reference '$apart'"
    check 'and so under one that chooses keys by the query, SwiftShader' inside "$icd" \
        "as_reference '$choosing'"
else
    skipped=1
    echo 'skipped: SwiftShader could not be had'
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
