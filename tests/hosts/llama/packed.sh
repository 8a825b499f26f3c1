# Sourced after inside.sh: the RAT+ models of samples/models, packed into GGUF files.
models=/ratplus/samples/models
runner=$BUILD/samples/run/ratplus-run
text=$work/packed-text

# packed_policy VARIANT [THETA]
packed_policy() {
    RATPLUS_POLICY=$work/packed-policy.json
    export RATPLUS_POLICY
    echo "{\"default\": \"$1\", \"memory\": {\"packed\": true, \"theta\": ${2:-10000}}}" \
        >"$RATPLUS_POLICY"
}

# In float32, so that the runner and the host compute alike; the text is longer than a ubatch.
packed_files() {
    meson configure "$BUILD" -Dsamples=true && ninja -C "$BUILD" samples/run/ratplus-run \
        >"$work/build.txt" 2>&1 || { tail -n 20 "$work/build.txt"; return 1; }
    head -c 600 $models/held-out.txt >"$text"
    for model in llama llama-d16w64s4; do
        python3 /ratplus/samples/convert/ratplus-convert $models/$model --quiet --force \
            --gguf "$work/$model.gguf" --dtype float32 || return 1
    done
}

# packed_run MODEL OPTIONS: the greedy text of the host, longer than what is compared, since
# what it prints last may be lost when it exits.
packed_run() {
    file=$work/$1.gguf
    shift
    timeout 120 llama-completion -m "$file" -f "$text" -n 100 --temp 0 --no-warmup -no-cnv -c 1024 \
        --ignore-eos -b 128 -ub 32 -ngl 99 "$@" </dev/null 2>"$work/packed-log"
}

# packed_same_text MODEL VARIANT [TYPE]: as the runner's, with a cache of this type.
packed_same_text() {
    packed_policy "$2"
    { cat "$text"; "$runner" "$models/$1" --file "$text" --tokens 80 --variant "$2" \
        --cache-dtype "${3:-f16}" --device reference; } >"$work/packed-wanted" || return 1
    export GGML_BACKEND_PATH="$plugin"
    packed_run "$1" -fa on -ctk "${3:-f16}" -ctv "${3:-f16}" >"$work/packed-found" || return 1
    # The runner ends its text with a line feed.
    head -c 680 "$work/packed-wanted" >"$work/packed-first"
    head -c 680 "$work/packed-found" | cmp - "$work/packed-first"
}

# Nobody may take such a file for a model that works by itself: what it says is not even text.
packed_garbage() {
    packed_policy dense
    unset GGML_BACKEND_PATH
    packed_run llama -fa on >"$work/packed-garbage" || return 1
    tail -c +601 "$work/packed-garbage" | head -c 80 >"$work/packed-said"
    echo "without the backend it says: $(head -c 40 "$work/packed-said")"
    [ "$(fold -w 1 "$work/packed-said" | sort -u | wc -l)" -le 8 ]
}

# packed_refused TEXT MODEL OPTIONS: nothing is generated, and a line says TEXT.
packed_refused() {
    wanted=$1
    shift
    export GGML_BACKEND_PATH="$plugin"
    ! packed_run "$@" >"$work/packed-found" || return 1
    grep -a "^ratplus: .*$wanted" "$work/packed-log" | head -n 1 | grep . &&
        [ "$(wc -c <"$work/packed-found")" -le 601 ]
}

packed_refusals() {
    packed_policy dense &&
        packed_refused 'must be f16 or bf16' llama -fa on -ctk q8_0 -ctv q8_0 &&
        packed_refused 'must be f16 or bf16' llama -fa on -ctk f32 -ctv f32 &&
        packed_refused 'start it with -fa on' llama -fa off &&
        packed_refused 'marker' llama -fa on --rope-freq-scale 0.5 &&
        packed_refused 'the layer before it' llama -fa on -ngl 2 &&
        packed_policy dense 20000 && packed_refused '"theta" 20000' llama -fa on &&
        packed_policy dense && python3 tiny.py "$work/tiny.gguf" &&
        packed_refused 'as many key/value heads as query heads' tiny -fa on
}

# packed_logits VARIANT [one]: as the runner's, in all that a host does with a sequence; with
# `one` a single sequence.
packed_logits() {
    pkg-config --exists llama || { echo 'libllama-dev is missing in this root'; return 1; }
    packed_policy "$1"
    head -c 320 "$text" >"$work/packed-short"
    "$runner" $models/llama --file "$work/packed-short" --tokens 0 --variant "$1" \
        --device reference --logits "$work/packed-logits" &&
        gcc -std=c11 -O2 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror packed.c \
            $(pkg-config --cflags --libs llama ggml) -lm -o "$work/packed" || return 1
    GGML_BACKEND_PATH=$plugin timeout 280 "$work/packed" "$work/llama.gguf" "$work/packed-short" \
        "$work/packed-logits" ${2:+"$2"} 2>"$work/packed-log" ||
        { grep -a '^ratplus:' "$work/packed-log" | head -n 5; return 1; }
    [ -n "${2:-}" ] || grep -a '^ratplus: .*"memory" is not what it was' "$work/packed-log"
}

# Each is refused when the host starts, and the line says which member it is.
packed_policies() {
    export RATPLUS_POLICY="$work/packed-policy.json"
    for memory in '7:must be an object' '{"packed": 1}:memory.packed must be true or false' \
        '{"packed": true, "theta": 1}:memory.theta must be a number above 1' \
        '{"pack": true}:unknown key "pack" in memory'; do
        echo "{\"default\": \"dense\", \"memory\": ${memory%:*}}" >"$RATPLUS_POLICY"
        GGML_BACKEND_PATH=$plugin llama-bench --list-devices >"$work/packed-log" 2>&1
        grep -a "^ratplus: policy .*${memory##*:}" "$work/packed-log" || return 1
    done
}
