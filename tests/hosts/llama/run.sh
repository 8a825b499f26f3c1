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
check "ggml's own tests of SET_ROWS, reference" inside /none 'operations SET_ROWS . 87'
check "ggml's own tests of FLASH_ATTN_EXT, reference" inside /none \
    "operations FLASH_ATTN_EXT 'kv=(113|512),nb=(1|3),' 1163"
check 'greedy text is that of the CPU, reference' inside /none 'same_text f16'
check 'a cache of 8-bit blocks stays here, reference' inside /none 'speaks_here q8_0 text'

# Vulkan is SwiftShader, so that the baseline is what is tested.
if manifest=$(sh tests/swiftshader.sh); then
    cp "$(dirname "$manifest")"/* "$build/"
    icd=$folder/$(basename "$manifest")
    check 'an unmodified llama.cpp lists SwiftShader' inside "$icd" 'listed SwiftShader'
    # Every type, with and without mask, ALiBi and sinks; single queries and several.
    check "ggml's own tests of FLASH_ATTN_EXT, SwiftShader" inside "$icd" \
        "operations FLASH_ATTN_EXT 'hsk=64,.*nr23=.4,1.,kv=512,nb=(1|3),.*cap=0.0*,prec=f32.*permute=.0,1' 60"
    check 'greedy text is that of the CPU, SwiftShader' inside "$icd" 'same_text f16'
    check 'and with q8_0 that of the reference' inside "$icd" 'same_as_reference q8_0'
    check 'and with q4_0' inside "$icd" 'same_as_reference q4_0'
else
    skipped=1
    echo 'skipped: SwiftShader could not be had'
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
