# Sourced by inside.sh: whether layers follow the policy, what is said of it, and of memory.
dilated='{"default": "d16w64s2"}'

# said LINE ARGUMENTS...: one line tells which layers follow the policy; LINE is its end.
said() {
    line=$1
    shift
    speak layers "${policy_of_layers:-$dilated}" -c 512 -b 64 -ub 64 -n 8 "$@" >/dev/null || return 1
    grep -a '^ratplus: policy .* layers follow it' "$work/layers.log" >"$work/layers.lines"
    sed "s:$work/::" "$work/layers.lines"
    [ "$(wc -l <"$work/layers.lines")" -eq 1 ] && grep -qF -- ".json: $line" "$work/layers.lines"
}

# A later option of the host's stands for an earlier one.
layers_said() {
    all='0 of 3 layers follow it; layers 0-2 are dense, because'
    said '3 of 3 layers follow it' &&
        said "$all no cache came here (-ngl 99, no -nkvo)" -ngl 0 &&
        said "$all no cache came here (-ngl 99, no -nkvo)" -nkvo &&
        said '2 of 2 layers follow it; of 1 before them nothing came here' -ngl 3 --no-op-offload &&
        said '1 of 3 layers follow it; layers 0-1 are dense, because no cache came here' -ngl 2 &&
        counted layers '"layers":{"asked":3,"following":1,"away":{"no cache came here' &&
        said "$all the host runs without flash attention (-fa on)" -fa off &&
        said "$all a cache of this type does not run here (-ctk, -ctv)" -ctk q5_1 -ctv q5_1 &&
        said "$all a cache of this type does not run here (-ctk, -ctv)" -ctk iq4_nl -ctv iq4_nl &&
        said "$all K is a copy of the cache in another type (-ctk f32)" -ctk f32 &&
        counted layers '"K is a copy of the cache in another type (-ctk f32)":33' || return 1
    # Of layers that the policy leaves dense nothing is said.
    policy_of_layers='{"default": "dense", "rules": [{"layers": "0,1", "variant": "d4"}]}'
    said '1 of 2 layers follow it; layer 0 is dense, because no cache came here' -ngl 3 || return 1
    policy_of_layers='{"default": "dense"}'
    said '' -ngl 0
    policy_of_layers=
    [ ! -s "$work/layers.lines" ] || return 1
    # Heads of 36 channels.
    sed 's/= 3, 256, 8, 2, 32,/= 3, 288, 8, 2, 36,/' tiny.py >"$work/odd.py" &&
        python3 "$work/odd.py" "$work/odd.gguf" &&
        said "$all head sizes or masks like these do not run here" -m "$work/odd.gguf" || return 1
    # A prompt alone, in one pass; and no attention at all.
    said '3 of 3 layers follow it' -n 1 -b 512 -ub 512 || return 1
    printf '%s\n' "$dilated" >"$work/layers.json"
    RATPLUS_POLICY=$work/layers.json GGML_BACKEND_PATH=$plugin llama-bench --list-devices 2>&1 |
        grep 'no attention came to this backend, nothing follows it'
}

# later NAME LINE: what begins after the first pass is said once, after the first line.
later() {
    grep -a '^ratplus: policy .* layers follow it' "$work/$1.log" >"$work/layers.lines"
    sed "s:$work/::" "$work/layers.lines"
    head -n 1 "$work/layers.lines" | grep -q '3 of 3 layers follow it$' &&
        [ "$(grep -cF -- "$2" "$work/layers.lines")" -eq 1 ]
}

# chosen_in TYPE: quest and moba by summaries of a cache in blocks; the library's own plain C is
# held against the device.
chosen_in() {
    choices='{"default": "quest32p8", "rules": [{"layers": 1, "variant": "moba16k3"}]}'
    for name in chosen chosen-reference; do
        (case $name in *reference) VK_ICD_FILENAMES=/none ;; esac
            speak $name "$choices" -c 512 -n 48 -ctk "$1" -ctv "$1") &&
            counted $name '"fallbacks":{}' && counted $name '"quest32p8":{"nodes":94,' &&
            counted $name '"moba16k3":{"nodes":48,' || return 1
    done
    speak chosen-dense '{"default": "dense"}' -c 512 -n 48 -ctk "$1" -ctv "$1" >/dev/null &&
        cmp "$work/chosen.text" "$work/chosen-reference.text" &&
        ! cmp -s "$work/chosen.text" "$work/chosen-dense.text"
}

# Free memory is what is left, and a buffer that is refused has a line.
memory_told() {
    gcc -Wall -Wextra -o "$work/memory" memory.c -lggml -lggml-base && "$work/memory" "$plugin" "$1"
}

# refused_context LIMIT: so does a context that is too large for one buffer.
refused_context() {
    [ -s "$work/tiny.gguf" ] || python3 tiny.py "$work/tiny.gguf" || return 1
    ! GGML_BACKEND_PATH=$plugin timeout 120 llama-completion -m "$work/tiny.gguf" -p x -n 1 -c 140000 \
        -b 8192 -ub 8192 --no-warmup -no-cnv -ngl 99 -fa on </dev/null >"$work/context.log" 2>&1 || return 1
    grep -ao 'ratplus: RATPLUS0: no buffer of .*' "$work/context.log" | sort -u | grep "at most $1"
}
