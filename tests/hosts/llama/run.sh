#!/bin/sh
# An unmodified llama.cpp, in a Debian sid root, with the ggml backend of this
# tree. RATPLUS_SID names a root that has the packages; without it one is made, as
# root, under .cache/ and kept. Ends with a total line.
set -u
cd "$(dirname "$0")/../../.." || exit 1
# What is mounted here is seen by nobody else, and gone at the end however it comes.
if [ -z "${RATPLUS_MOUNTS:-}" ] && unshare --mount true 2>/dev/null; then
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

# skip WHY
skip() {
    skipped=$((skipped + 1))
    echo "skipped: $1"
}

finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}

if ! sid_root || ! sid_enter; then
    skip "$sid_why"
    finish
fi

folder=/ratplus/${build#"$PWD/"}
# inside VULKAN_DRIVER COMMAND
inside() {
    chroot "$sid" sh -c "cd /ratplus/tests/hosts/llama && VK_ICD_FILENAMES=$1 BUILD=$folder . ./inside.sh; $2"
}

# Debian moves on; then there is one thing to test.
ggml=$(sid_ggml)
if [ "$ggml" != "$sid_known" ]; then
    if inside /none build; then
        check "ggml $ggml is refused in one line, and the host goes on" inside /none "refused $ggml"
    else
        skip "the backend does not build with the headers of ggml $ggml"
    fi
    skip "all else: the root has ggml $ggml, and the backend knows $sid_known"
    finish
fi

check 'the backend builds without a warning' inside /none build
check 'another version of ggml is refused in one line, and the host goes on' inside /none \
    'refused 0.28.1 foreign'

# Without Vulkan the reference device runs; all cases of few queries.
check 'an unmodified llama.cpp lists the reference' inside /none "listed reference"
check "ggml's own tests of SET_ROWS, reference" inside /none 'operations SET_ROWS . 60'
check "ggml's own tests of FLASH_ATTN_EXT, reference" inside /none \
    "operations FLASH_ATTN_EXT 'kv=(113|512),nb=(1|3),' 340"
check 'greedy text is that of the CPU, reference' inside /none 'same_text f16'
check 'and so with a quantised cache, which the host runs' inside /none 'same_text q8_0'
check 'logits are those of float32: Llama' inside /none logits_are_close
check 'logits are those of float32: Gemma 2, soft-caps and windows' inside /none \
    'logits_are_close gemma2'
check 'under the address and undefined-behaviour sanitizers' inside /none sanitized

# The sid root's own lavapipe, for what is too much for SwiftShader.
icd=/usr/share/vulkan/icd.d/lvp_icd.json
check 'logits are those of float32 on lavapipe' inside "$icd" 'logits_are_close gemma2'
check 'llama-server: slots at once, cancelled, saved and restored, shifted' inside "$icd" served
check 'llama-bench at some depth' inside "$icd" benches
if [ -x "$sid/usr/bin/llama-perplexity" ]; then
    check 'llama-perplexity: as on the CPU' inside "$icd" same_perplexity
else
    skip "there is no llama-perplexity in $sid (Debian: $sid_more)"
fi
check "weights on ggml's Vulkan backend, attention here" inside "$icd" weights_elsewhere
check 'the validation layer is silent, and so are its checks of synchronisation' inside "$icd" validated

# Vulkan is SwiftShader, so that the baseline is what is tested.
if manifest=$(sh tests/swiftshader.sh); then
    cp "$(dirname "$manifest")"/* "$build/"
    icd=$folder/$(basename "$manifest")
    check 'an unmodified llama.cpp lists SwiftShader' inside "$icd" 'listed SwiftShader'
    check "ggml's own tests of FLASH_ATTN_EXT, SwiftShader" inside "$icd" \
        "operations FLASH_ATTN_EXT 'hsk=64,hsv=64,.*nr23=.4,1.,kv=512,nb=(1|3),mask=1,sinks=0,max_bias=0.0' 10"
    check 'greedy text is that of the CPU, SwiftShader' inside "$icd" 'same_text f16'
else
    skip 'SwiftShader could not be had'
fi

finish
