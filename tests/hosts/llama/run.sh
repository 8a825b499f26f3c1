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
check "ggml's own tests of SET_ROWS, reference" inside /none 'operations SET_ROWS . 87'
check "ggml's FLASH_ATTN_EXT: 2000 cases and more are run here" inside /none \
    'supported FLASH_ATTN_EXT 2000'
check "ggml's own tests of FLASH_ATTN_EXT, reference" inside /none \
    "operations FLASH_ATTN_EXT 'kv=(113|512),nb=(1|3),' 1163"
check 'greedy text is that of the CPU, reference' inside /none 'same_text f16'
check 'a cache of 8-bit blocks stays here, reference' inside /none 'speaks_here q8_0 text'
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
check 'one line tells which layers follow a policy, and why others do not' inside /none layers_said
check 'free memory is what is left, and a refused buffer has a line, reference' inside /none 'memory_told counted'
check 'and so on lavapipe' inside "$icd" 'memory_told told'
check 'a context too large for a buffer is refused with a line' inside "$icd" 'refused_context 2147'
check 'quest and moba choose among keys of q8_0' inside "$icd" 'chosen_in q8_0'
check 'and of q4_0' inside "$icd" 'chosen_in q4_0'
check 'a server of two slots follows its policy as it changes' inside /none policy_served
check 'what is decoded and what is of a prompt, over many histories' inside /none parts
if [ -x "$sid/usr/bin/llama-speculative-simple" ]; then
    check 'text with a draft model is that without, where prompts attend otherwise' inside /none drafted
else
    skip "there is no llama-speculative-simple in $sid (Debian: $sid_more)"
fi
check 'and so it is in a server of two slots' inside /none drafts_served
check 'a prompt that is copied to other sequences stays under its policy' inside /none shared_prompts
check 'a pass over two devices has one policy' inside "$icd" two_devices
check 'what cannot be a policy file is refused, and not waited for' inside /none special_files
check '-sm tensor, which the host does not survive, is explained before' inside /none split_tensors
check 'a host asks for the statistics, and keeps its own signal handler' inside /none asked

# packed VULKAN_DRIVER COMMAND
packed() {
    inside "$1" ". ./packed.sh; $2"
}
check 'RAT+ models become packed GGUF files' packed /none packed_files
check 'a packed model without the backend writes nonsense' packed /none packed_garbage
check 'a packed model that does not fit is refused with a line' packed /none packed_refusals
check 'and a policy that says it wrongly' packed /none packed_policies
check 'greedy text of a packed model is the runner'"'"'s' packed /none 'packed_same_text llama dense'
check 'and so in bf16' packed /none 'packed_same_text llama dense bf16'
for variant in d16 d16w64s4; do
    check "and so with $variant" packed /none "packed_same_text llama $variant"
done
check 'and so of a model adapted to d16w64s4' packed /none \
    'packed_same_text llama-d16w64s4 d16w64s4'
check 'logits of a packed model are the runner'"'"'s' packed /none 'packed_logits dense'
check 'and so with d16w64s4' packed /none 'packed_logits d16w64s4 one'

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
    check 'text and counts are those of NumPy under a policy, SwiftShader' inside "$icd" \
        "as_reference '$apart'"
    check 'greedy text of a packed model, SwiftShader' packed "$icd" \
        'packed_same_text llama d16w64s4'
    check 'logits of a packed model, SwiftShader' packed "$icd" 'packed_logits dense'
    check 'and so under one that chooses keys by the query, SwiftShader' inside "$icd" \
        "as_reference '$choosing'"
else
    skip 'SwiftShader could not be had'
fi

finish
