# Sourced by inside.sh: policies, what they fall back to, and how they change.
prompt=$(for i in 1 2 3 4 5 6 7 8 9 10 11 12; do printf 'In_the_beginning_'; done
    printf 'there_was_a_cat_and_a_dog')

# speak NAME POLICY ARGUMENTS: text and log in $work/NAME.text and .log; POLICY "": none.
speak() {
    name=$1
    [ -s "$work/tiny.gguf" ] || python3 tiny.py "$work/tiny.gguf" || return 1
    rm -f "$work/$name.json"
    [ -z "$2" ] || printf '%s\n' "$2" >"$work/$name.json"
    policy=${2:+$work/$name.json}
    shift 2
    stats=json RATPLUS_POLICY=$policy GGML_BACKEND_PATH=$plugin complete "$work/$name.text" \
        "$work/$name.log" -m "$work/tiny.gguf" -p "$prompt" -ngl 99 --ignore-eos "$@" || return 1
    sed -n "/^ratplus:/s:$work/::p" "$work/$name.log"
}

# counted NAME TEXT: is in the statistics.
counted() {
    grep -a '^{"attention_nodes"' "$work/$1.log" | grep -qF "$2" && return
    echo "no $2 in $(grep -a '^{"attention_nodes"' "$work/$1.log")"
    return 1
}

# The text and the counts of a reference in NumPy, over prompts in several parts.
as_reference() {
    speak reference "$1" -c 512 -ub 64 -b 64 -n 48 -l 0-1000 -l 1-1000 && python3 reference.py "$work/tiny.gguf" \
        "$work/reference.json" "$prompt" 64 48 "$work/reference.text" "$work/reference.log"
}

# No policy, one that says dense, and the CPU; and another policy is another text.
dense_policy() {
    speak none '' -c 512 -n 48 && speak dense '{"default": "dense"}' -c 512 -n 48 &&
        speak other '{"default": "d16w8"}' -c 512 -n 48 || return 1
    plugin='' speak cpu '' -c 512 -n 48 || return 1
    cmp "$work/cpu.text" "$work/none.text" && cmp "$work/cpu.text" "$work/dense.text" &&
        ! cmp -s "$work/cpu.text" "$work/other.text" &&
        counted none '"dense":{"nodes":144,' && counted dense '"fallbacks":{}'
}

# refused POLICY LINE: the line says why, the text is the dense one.
refused_policy() {
    speak refused "$1" -c 512 -n 48 >/dev/null &&
        cmp "$work/cpu.text" "$work/refused.text" || return 1
    grep -a '^ratplus:' "$work/refused.log"
    [ "$(grep -ac '^ratplus: policy' "$work/refused.log")" -eq 1 ] && grep -aqF -- "$2" "$work/refused.log"
}

refused_policies() {
    refused_policy '{"default": "d16w64"' 'the JSON text ends early; attention is dense' &&
        refused_policy '{"default": "d16w64",
            "memory": {"packed": false}, "defualt": "d4"}' \
            'line 2, column 42: unknown key "defualt" in the policy' &&
        refused_policy '{"memory": {"packed": 1}}' 'memory.packed must be true or false' &&
        refused_policy '{"memory": {"packd": true}}' 'unknown key "packd" in memory' &&
        refused_policy '{"memory": {}, "default": "d4", "memory": {}}' 'memory is given twice'
}

# What a host's cache cannot have is dense, and said and counted.
dense_instead() {
    speak instead '{"default": "dense", "rules": [{"layers": 1, "variant": "snapkv64"}]}' -c 512 -n 48 &&
        cmp "$work/cpu.text" "$work/instead.text" &&
        counted instead '"snapkv needs a cache of the library'"'"'s own":47'
}

# Nor what there is no memory for.
no_memory() {
    gcc -Wall -Wextra -shared -fPIC -I../../../abi -o "$work/libnomemory.so" no_memory.c || return 1
    (export LD_PRELOAD="$work/libnomemory.so" LD_LIBRARY_PATH="$BUILD/plugin"
        speak memory '{"default": "quest32p8"}' -c 512 -n 48) &&
        cmp "$work/cpu.text" "$work/memory.text" &&
        counted memory '"the device has no memory for summaries of K":141' &&
        [ "$(grep -ac 'ratplus: no buffer of .* bytes for summaries of K' "$work/memory.log")" -eq 1 ] &&
        later memory 'because the device has no memory for summaries of K'
}

# Summaries of K when the host turns K where it lies.
turned() {
    printf '%s\n' '{"default": "quest32p8", "rules": [{"layers": 1, "variant": "moba16k3"}]}' >"$work/turned.json"
    gcc -Wall -Wextra -o "$work/turned" turned.c -lllama -lggml -lggml-base -lm &&
        GGML_BACKEND_PATH=$plugin RATPLUS_POLICY=$work/turned.json RATPLUS_STATS=json \
            "$work/turned" "$work/tiny.gguf" 2>"$work/turned.log" && counted turned '"fallbacks":{}' &&
        counted turned '"quest32p8":{"nodes":46,'
}

# A host that shifts its context: gaps, then cells that are filled anew, out of order.
shifted() {
    speak shift '{"default": "dense"}' -c 256 --context-shift -n 200 >/dev/null || return 1
    plugin='' speak shift-cpu '' -c 256 --context-shift -n 200 || return 1
    cmp "$work/shift.text" "$work/shift-cpu.text" || return 1
    speak shift '{"default": "d16w64s2"}' -c 256 --context-shift -n 200 || return 1
    counted shift '"the mask hides cells before the query'"'"'s own":378' &&
        counted shift '"cells are not known to be in order of position":144' &&
        counted shift '"d16w64s2":{"nodes":78,' &&
        later shift "because the mask hides cells before the query's own" &&
        later shift 'because cells are not known to be in order of position'
}

# A sequence from the file of another process: nobody knows the order of its cells.
loaded() {
    rm -f "$work/loaded.bin"
    for nodes in '"d16w64s2":{"nodes":63,' '"cells are not known to be in order of position":60'; do
        speak loaded '{"default": "d16w64s2"}' -c 512 -n 20 --prompt-cache "$work/loaded.bin" &&
            counted loaded "$nodes" || return 1
    done
}

# A server with two slots while its policy changes.
policy_served() {
    python3 policy_server.py "$plugin" "$work/tiny.gguf" "$work"
}

# The statistics as a function, beside a host's own handler of SIGUSR1.
asked() {
    gcc -Wall -Wextra -o "$work/statistics" statistics.c -lggml -lggml-base &&
        RATPLUS_STATS=1 RATPLUS_POLICY='' "$work/statistics" "$plugin" >"$work/asked.text" 2>"$work/asked.log" ||
        { cat "$work/asked.text"; return 1; }
    grep '^ratplus: ran 0 attention nodes' "$work/asked.log"
}
