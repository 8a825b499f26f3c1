#!/bin/sh
# The repository holds no unfinished work, no paths of somebody's machine, and
# no file that a reader cannot finish in a sitting. Usage: tidy.sh ROOT
set -u
cd "$1" || exit 1
bad=0
complain() {
    [ -z "$2" ] && return
    echo "$1:"
    echo "$2" | sed 's/^/  /'
    bad=1
}

# Without git, or without its trust in this folder, what is there and was not built.
files() {
    git ls-files -co --exclude-standard 2>/dev/null ||
        find . -type f | sed 's:^\./::' | grep -v -e '^build' -e '^\.git/' -e '^\.cache/' -e '__pycache__'
}
texts=$(files |
    grep -v -e '^tests/golden/data/' -e '\.safetensors$' -e '\.png$' -e '^LICENSE$' |
    while read -r f; do
        [ -f "$f" ] && echo "$f"
    done)
# The words are put together here so that this file does not find itself.
complain "unfinished work" "$(grep -nwE "TO""DO|FIX""ME|XX""X|HA""CK" $texts)"
complain "a path of one machine" "$(grep -nE "/(ho""me|wo""rk|Use""rs|ro""ot)/[a-z]" $texts)"
complain "trailing blanks or tabs" \
    "$(grep -nE "[[:blank:]]$|$(printf '\t')" $texts | grep -v -e '^[^:]*\.svg:')"
complain "longer than 600 lines" "$(wc -l $(echo "$texts" | grep -v '\.svg$') |
    awk '$1 > 600 && $2 != "total"')"
complain "engines copy it, so it stays short: 300 lines or more" \
    "$(wc -l samples/host-vulkan/*.c | awk '$1 >= 300')"
complain "lines longer than 120 characters" "$(awk 'length > 120 { print FILENAME ":" FNR }' \
    $(echo "$texts" | grep -E '\.(c|h|comp|glsl|py|sh)$'))"
exit $bad
