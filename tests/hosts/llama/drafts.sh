# Sourced by inside.sh: what is a prompt's and what is decoded, where hosts draft tokens and copy
# sequences, and models lie on two devices.

# The rule alone.
parts() {
    gcc -std=c11 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -I../../../abi \
        -I../../../adapters/ggml parts.c ../../../adapters/ggml/parts.c -o "$work/parts" && "$work/parts"
}

# drafting NAME ARGUMENTS: 60 tokens of llama-speculative-simple, which verifies drafts of another
# model, go to $work/NAME.text. It decodes the prompt's last token with the first draft, and may
# lose the end of its text and of what it says.
drafting() {
    name=$1
    shift
    [ -s "$work/tiny.gguf" ] || python3 tiny.py "$work/tiny.gguf" || return 1
    printf '%s\n' '{"default": "dense:streamw16s4"}' >"$work/drafts.json"
    for try in 1 2 3 4 5; do
        RATPLUS_STATS=json RATPLUS_POLICY=$work/drafts.json GGML_BACKEND_PATH=$plugin timeout 120 \
            llama-speculative-simple -m "$work/tiny.gguf" --spec-type draft-simple -p "$prompt" -n 80 \
            -c 512 --temp 0 -fa on -ngl 99 -ngld 99 -t 1 --ignore-eos "$@" </dev/null \
            >"$work/drafts.out" 2>"$work/$name.log" || { tail -n 3 "$work/$name.log"; return 1; }
        # The text is the prompt, which "<s>" stands before, and what follows.
        grep -a -A 100 '^<s>' "$work/drafts.out" | tail -c +$((${#prompt} + 4)) | head -c 60 \
            >"$work/$name.text"
        [ "$(wc -c <"$work/$name.text")" -eq 60 ] && grep -aq 'accept  *= ' "$work/$name.log" && return
    done
    echo "the text of llama-speculative-simple is never whole"
    return 1
}

# Drafts that are all accepted, of two lengths, and drafts that are not: the text is the one without
# drafts. So it is of a prompt that comes in parts, whose last is as short as a draft may be.
drafted() {
    python3 tiny.py "$work/draft.gguf" gemma2 &&
        drafting one -md "$work/tiny.gguf" --spec-draft-n-min 1000 &&
        drafting three -md "$work/tiny.gguf" --spec-draft-n-max 3 &&
        drafting most -md "$work/tiny.gguf" --spec-draft-n-max 64 &&
        drafting other -md "$work/draft.gguf" --spec-draft-n-max 3 &&
        drafting parts -md "$work/tiny.gguf" --spec-draft-n-max 12 -ub 32 || return 1
    for name in three most other parts; do
        cmp "$work/one.text" "$work/$name.text" || return 1
    done
    grep -ah 'n_accept' "$work/most.log" "$work/other.log"
    grep -aq 'accept  *= 100.000%' "$work/most.log" && ! grep -aq 'accept  *= 100.000%' "$work/other.log"
}

drafts_served() {
    python3 tiny.py "$work/draft.gguf" gemma2 &&
        timeout -k 10 200 python3 draft_server.py "$plugin" "$work/tiny.gguf" "$work/draft.gguf" "$work"
}

# Prompts that sequences share are copied to their streams, and go on there as the policy says.
shared_prompts() {
    printf '%s\n' '{"default": "streamw16s4"}' >"$work/shared.json"
    RATPLUS_STATS=json RATPLUS_POLICY=$work/shared.json GGML_BACKEND_PATH=$plugin timeout 120 \
        llama-batched-bench -m "$work/tiny.gguf" -c 2048 -npp 100 -ntg 20 -npl 1,3 -pps -fa on -ngl 99 \
        -t 1 >"$work/shared.log" 2>&1 || { tail -n 3 "$work/shared.log"; return 1; }
    counted shared '"fallbacks":{}' && counted shared '"attention":{"streamw16s4":{"nodes":135,'
}

# The same driver twice is two devices.
two_devices() {
    driver=${VK_ICD_FILENAMES##*:}
    cp "$driver" "$work/second.json" &&
        gcc -Wall -Wextra -o "$work/two_devices" two_devices.c -lllama -lggml -lggml-base || return 1
    VK_ICD_FILENAMES=$driver:$work/second.json GGML_BACKEND_PATH=$plugin RATPLUS_POLICY=$work/two.json \
        timeout 120 "$work/two_devices" "$work/tiny.gguf" 2>"$work/two.log"
}

# -sm tensor: the host aborts, and why is said before.
split_tensors() {
    ! GGML_BACKEND_PATH=$plugin RATPLUS_POLICY='' timeout 60 llama-completion -m "$work/tiny.gguf" -sm tensor \
        -p Once -n 4 -c 256 -fa on -ngl 99 -no-cnv -t 1 </dev/null >"$work/split.log" 2>&1 || return 1
    grep -a '^ratplus: RATPLUS0 cannot hold a part of each layer.* -sm layer' "$work/split.log"
}

# What is no regular file is not waited for, and not read to an end that it has not.
special_files() {
    rm -f "$work/pipe" && mkfifo "$work/pipe" && ln -sf pipe "$work/link" &&
        truncate -s 3G "$work/large.json" || return 1
    for file in "$work/pipe" "$work/link" /dev/zero /dev/tty "$work" "$work/large.json" /proc/kmsg; do
        GGML_BACKEND_PATH=$plugin RATPLUS_POLICY=$file timeout 10 llama-bench --list-devices \
            >"$work/special.log" 2>&1 || { echo "$file is waited for"; return 1; }
        grep -a "^ratplus: policy $file: it .*; attention is dense" "$work/special.log" || return 1
    done
    rm "$work/large.json" "$work/pipe" "$work/link"
}
