#!/bin/sh
# From a clean checkout on Debian 12 to generated text: sh samples/quickstart.sh
#
# What follows -- goes to ratplus-run as it is, for example
#     sh samples/quickstart.sh -- --tokens 64 --device software
# MODEL=folder uses a converted model of your own.
set -eu
cd "$(dirname "$0")/.."
. samples/packages.sh

case ${1:-} in
    '') ;;
    --) shift ;;
    *) sed -n '2,6s/^# \{0,1\}//p' samples/quickstart.sh; exit 2 ;;
esac
if [ -t 1 ]; then bold=$(printf '\033[1m') plain=$(printf '\033[0m'); else bold= plain=; fi
say() { printf '\n%s%s%s\n' "$bold" "$1" "$plain"; }

say "1. Packages"
need_packages $build_packages $sample_packages
echo "Everything is installed."

say "2. Build"
[ -f build/build.ninja ] || meson setup build -Dtests=false >build.log 2>&1 || { cat build.log; exit 1; }
rm -f build.log
ninja -C build --quiet
echo "Built in build/: $(./build/samples/info/ratplus-info --version)"

say "3. Devices"
./build/samples/info/ratplus-info

MODEL=${MODEL:-samples/models/rat}
compare() { ./build/samples/run/ratplus-run "$MODEL" --compare dense,d16w64s4,d64w64s4 "$@"; }
say "4. A number hidden in a text, and three kinds of attention"
if [ "$MODEL" = samples/models/rat ]; then
    echo "A small model of bytes that comes with the sources ($MODEL), trained on the King James"
    echo "Bible and Shakespeare. The text holds two numbers; the right answer is 4821."
    text=samples/models/held-out.txt
    {
        head -c 380 $text
        printf '\nthe key of amber is 4821.\n'
        tail -c 300 $text
        printf 'the key of silver is 7350.\n? the key of amber is '
    } >build/prompt.txt
    compare --file build/prompt.txt --tokens 5 "$@"
    say "5. The same model goes on with a text that it has not seen"
    tail -c 480 $text >build/prompt.txt
    compare --file build/prompt.txt --tokens 160 --temperature 0.5 --seed 3 "$@"
else
    # A prompt long enough to tell the caches apart.
    head -c 3000 README.md >build/prompt.txt
    compare --file build/prompt.txt --tokens 48 "$@"
fi

say "Next"
cat <<'TEXT'
  a model that speaks   samples/convert/ratplus-convert rat-1b.pth rat-1b --tokenizer tokenizer.model
                        MODEL=rat-1b sh samples/quickstart.sh -- --compare dense,d16w256s4,d64w256s4
  a conversation        build/samples/run/ratplus-run samples/models/rat --interactive
  every option          build/samples/run/ratplus-run --help
  speed of this device  build/samples/bench/ratplus-bench
  use it in an engine   README.md, "Embed it"; abi/ratplus.h
  all tests             sh tests/run.sh
TEXT
