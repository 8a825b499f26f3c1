# Sourced by inside.sh: the other tools of llama.cpp, and what else a host may do.
tests=/usr/libexec/x86_64-linux-gnu/ggml/test-backend-ops

# complete TEXT LOG ARGUMENTS...: of llama-completion, with the statistics as $stats says. It
# writes from a thread, which it does not always wait for at its end, on the CPU neither; a
# whole text ends in an empty line.
complete() {
    text=$1 log=$2
    shift 2
    for try in 1 2 3 4 5; do
        RATPLUS_STATS=${stats:-1} timeout 120 llama-completion -fa on "$@" --temp 0 --no-warmup -no-cnv -t 1 \
            </dev/null >"$text" 2>"$log" || { tail -n 3 "$log"; return 1; }
        [ "$(tail -c 2 "$text" | od -An -tx1)" = ' 0a 0a' ] && return 0
    done
    echo "the text of llama-completion is never whole"
    return 1
}

# logits_are_close [ARCHITECTURE]
logits_are_close() {
    python3 tiny.py "$work/logits.gguf" ${1:-} &&
        gcc -std=c11 -O2 -Wall -Wextra -Werror logits.c -o "$work/logits" -lllama -lggml -lggml-base -lm &&
        GGML_BACKEND_PATH=$plugin RATPLUS_STATS=1 timeout 120 "$work/logits" "$work/logits.gguf" \
            2>"$work/logits.txt" || { tail -n 5 "$work/logits.txt"; return 1; }
    [ "$(grep -c 'ratplus: ran [1-9]' "$work/logits.txt")" -eq 1 ]
}

served() {
    python3 tiny.py "$work/tiny.gguf" &&
        timeout -k 10 200 python3 server.py "$plugin" "$work/tiny.gguf" "$work"
}

# estimate PLUGIN LOG: of llama-perplexity, which loses the end of its log too.
estimate() {
    for try in 1 2 3 4 5; do
        GGML_BACKEND_PATH=$1 RATPLUS_STATS=1 timeout 60 llama-perplexity -m "$work/tiny.gguf" \
            -f "$work/text" -c 128 -b 256 -fa on -ngl 99 -t 1 >"$2" 2>&1 || return 1
        sed -n 's/.*Final estimate: PPL = \([0-9.]*\).*/\1/p' "$2" | grep . && return 0
    done
    return 1
}

# The same to a thousandth, as both round keys and values to f16.
same_perplexity() {
    python3 tiny.py "$work/tiny.gguf" && head -c 700 tiny.py >"$work/text" || return 1
    ours=$(estimate "$plugin" "$work/log.ours") && cpu=$(estimate '' "$work/log") || return 1
    echo "perplexity $ours, on the CPU $cpu"
    grep -aq 'ratplus: ran [1-9]' "$work/log.ours" &&
        awk "BEGIN { exit !($cpu > 1 && $ours / $cpu < 1.001 && $cpu / $ours < 1.001) }"
}

benches() {
    python3 tiny.py "$work/tiny.gguf" &&
        GGML_BACKEND_PATH=$plugin RATPLUS_STATS=1 timeout 120 llama-bench -m "$work/tiny.gguf" \
            -p 32 -n 8 -d 96 -r 1 -fa 1 -ngl 99 -t 1 >"$work/bench.txt" 2>&1 &&
        grep 'ratplus: ran [1-9]' "$work/bench.txt" && grep -q 'tg8 @ d96' "$work/bench.txt"
}

# Weights on ggml's own Vulkan backend, here on the same device; attention and cache are ours.
weights_elsewhere() {
    python3 tiny.py "$work/tiny.gguf" || return 1
    set -- -m "$work/tiny.gguf" -p Once_upon_a_time_there_was_a_cat_and_a_dog -n 16 -c 256
    GGML_VK_VISIBLE_DEVICES=0 GGML_BACKEND_PATH=$plugin complete "$work/text.ours" "$work/log.ours" \
        "$@" -dev RATPLUS0,Vulkan0 -ts 1,0 -ot '.*=Vulkan0' -ngl 99 &&
        complete "$work/text" "$work/log" "$@" -ngl 0 || return 1
    grep -ao 'ratplus: ran [1-9].*' "$work/log.ours"
    grep -aq 'ran 48 attention nodes and 96 cache writes' "$work/log.ours" &&
        cmp "$work/text" "$work/text.ours"
}

# The library's and the adapter's code alone, in a host that has no sanitizer: that
# comes first by LD_PRELOAD, and leaks are the host's.
sanitized() {
    ours=$BUILD/sanitizers
    [ -f "$ours/build.ninja" ] ||
        meson setup "$ours" /ratplus -Dggml=enabled -Dtests=false -Dsamples=false -Dbuildtype=debug \
            -Db_sanitize=address,undefined -Db_lundef=false -Db_ndebug=false \
            >"$work/sanitizers.txt" 2>&1 || { cat "$work/sanitizers.txt"; return 1; }
    ninja -C "$ours" >"$work/sanitizers.txt" 2>&1 || { tail -n 20 "$work/sanitizers.txt"; return 1; }
    for command in \
        "$tests test -b RATPLUS0 -o FLASH_ATTN_EXT -p hsk=72,hsv=72,.*kv=113,nb=3," \
        "llama-completion -m $work/tiny.gguf -p Once_upon_a_time -n 8 --no-warmup -no-cnv -t 1 -fa on -ngl 99"; do
        LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \
            ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
            GGML_BACKEND_PATH=$ours/adapters/ggml/libggml-ratplus.so RATPLUS_STATS=1 timeout 120 $command \
            </dev/null >"$work/sanitized.txt" 2>&1 || { tail -n 30 "$work/sanitized.txt"; return 1; }
        grep -ao 'ratplus: ran [1-9].*' "$work/sanitized.txt" || return 1
        ! grep -aE 'runtime error|AddressSanitizer' "$work/sanitized.txt" || return 1
    done
}

# Under the validation layer, with its checks of what must wait for what.
validated() {
    python3 tiny.py "$work/tiny.gguf" || return 1
    # It says what it checks among the information.
    VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation VK_KHRONOS_VALIDATION_VALIDATE_SYNC=true \
        VK_KHRONOS_VALIDATION_REPORT_FLAGS=info,warn,error VK_KHRONOS_VALIDATION_LOG_FILENAME=stdout \
        GGML_BACKEND_PATH=$plugin RATPLUS_STATS=1 timeout 120 llama-completion -m "$work/tiny.gguf" \
        -p Once_upon_a_time -n 16 --temp 0 --no-warmup -no-cnv -c 256 -t 1 -fa on -ngl 99 </dev/null \
        >"$work/validated.txt" 2>&1 || { tail -n 5 "$work/validated.txt"; return 1; }
    grep -ao 'ratplus: ran [1-9].*' "$work/validated.txt" &&
        grep -aq '^  - Synchronization' "$work/validated.txt" &&
        ! grep -aE 'VUID|SYNC-HAZARD|Validation (Error|Warning)' "$work/validated.txt"
}
