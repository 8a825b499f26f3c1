# Sourced in the root by run.sh: what is checked there. BUILD is the build's folder.
export VK_ICD_FILENAMES
plugin=$BUILD/adapters/ggml/libggml-ratplus.so
work=$BUILD/llama
mkdir -p "$work"
. ./tools.sh
. ./policy.sh

build() {
    [ -f "$BUILD/build.ninja" ] ||
        meson setup "$BUILD" /ratplus -Dggml=enabled -Dtests=false -Dsamples=false \
            >"$work/build.txt" 2>&1 || { cat "$work/build.txt"; return 1; }
    ninja -C "$BUILD" >"$work/build.txt" 2>&1 || { cat "$work/build.txt"; return 1; }
    ! grep 'adapters/ggml.*warning' "$work/build.txt"
}

# listed DEVICE: as the description of RATPLUS0.
listed() {
    GGML_BACKEND_PATH=$plugin llama-bench --list-devices 2>/dev/null | grep "RATPLUS0: $1"
}

# refused VERSION [foreign]: of ggml, or of a ggml_version that comes before ggml's own.
refused() {
    preload=
    if [ -n "${2:-}" ]; then
        preload=$work/libforeign.so
        echo "const char *ggml_version(void); const char *ggml_version(void) { return \"$1\"; }" |
            gcc -shared -fPIC -o "$preload" -x c - || return 1
    fi
    LD_PRELOAD=$preload GGML_BACKEND_PATH=$plugin llama-bench --list-devices \
        >"$work/refused.txt" 2>&1 || return 1
    # The host tries twice.
    grep '^ratplus:' "$work/refused.txt" | sort -u >"$work/refused.ours"
    cat "$work/refused.ours"
    [ "$(grep -c . "$work/refused.ours")" -eq 1 ] && grep -qF " is $1," "$work/refused.ours" &&
        ! grep -q 'RATPLUS0' "$work/refused.txt"
}

# operations NAME PARAMETERS LEAST: at least that many cases are supported, and all pass.
operations() {
    GGML_BACKEND_PATH=$plugin timeout 180 "$tests" \
        test -b RATPLUS0 -o "$1" -p "$2" >"$work/$1.txt" 2>&1 || { tail -n 3 "$work/$1.txt"; return 1; }
    line=$(grep -oE '[0-9]+/[0-9]+ tests passed' "$work/$1.txt")
    echo "$1: $line"
    run=${line%%/*}
    [ "${run:-0}" -ge "$3" ] && case $line in "$run/$run "*) true ;; *) false ;; esac
}

# same_text TYPE: of the cache. With f16 the backend must have run every layer of every token.
same_text() {
    python3 tiny.py "$work/tiny.gguf" || return 1
    for path in "$plugin" ''; do
        GGML_BACKEND_PATH=$path complete "$work/text${path:+.ours}" "$work/log${path:+.ours}" \
            -m "$work/tiny.gguf" -p Once_upon_a_time_there_was_a_cat_and_a_dog -n 48 -c 512 \
            -ngl 99 --ignore-eos -ctk "$1" -ctv "$1" || return 1
    done
    grep -ao 'ratplus: ran [1-9].*' "$work/log.ours"
    if [ "$1" = f16 ]; then
        grep -aq 'ran 144 attention nodes and 288 cache writes' "$work/log.ours" || return 1
    fi
    [ "$(wc -c <"$work/text")" -gt 60 ] && cmp "$work/text" "$work/text.ours"
}
