# Sourced in the root by run.sh: what is checked there. BUILD is the build's folder.
export VK_ICD_FILENAMES
plugin=$BUILD/adapters/ggml/libggml-ratplus.so
work=$BUILD/llama
mkdir -p "$work"
. ./tools.sh
. ./policy.sh
. ./drafts.sh
. ./layers.sh

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

# supported NAME LEAST: cases that this backend says it runs; `operations` runs a part of them.
supported() {
    GGML_BACKEND_PATH=$plugin timeout 60 "$tests" support --output csv -b RATPLUS0 -o "$1" \
        >"$work/supported.csv" 2>"$work/supported.txt" || { tail -n 3 "$work/supported.txt"; return 1; }
    run=$(grep -c '"yes"' "$work/supported.csv")
    echo "$1: $run of $(grep -c '"support"' "$work/supported.csv") cases are run here"
    [ "$run" -ge "$2" ]
}

# speaks TYPE NAME: greedy text with a cache of that type goes to $work/NAME, what llama.cpp says to
# $work/NAME.log.
speaks() {
    python3 tiny.py "$work/tiny.gguf" || return 1
    complete "$work/$2" "$work/$2.log" -m "$work/tiny.gguf" \
        -p Once_upon_a_time_there_was_a_cat_and_a_dog -n 48 -c 512 \
        -ngl 99 --ignore-eos -ctk "$1" -ctv "$1" &&
        [ "$(wc -c <"$work/$2")" -gt 60 ]
}

# speaks_here TYPE NAME: and the backend has run every layer of every token.
speaks_here() {
    GGML_BACKEND_PATH=$plugin speaks "$1" "$2" && grep -ao 'ratplus: ran [1-9].*' "$work/$2.log" &&
        grep -aq 'ran 144 attention nodes and 288 cache writes' "$work/$2.log"
}

# same_text TYPE: as the CPU's.
same_text() {
    speaks_here "$1" text.ours && speaks "$1" text && cmp "$work/text" "$work/text.ours"
}

# same_as_reference TYPE: of a cache in blocks, whose queries the CPU rounds to 8 bits: the
# library's own plain C is held against the device.
same_as_reference() {
    speaks_here "$1" text.ours && VK_ICD_FILENAMES=/none speaks_here "$1" text &&
        cmp "$work/text" "$work/text.ours"
}
