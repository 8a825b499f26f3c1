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

if [ -z "${MODEL:-}" ]; then
    say "4. A model"
    MODEL=build/golden-model
    samples/convert/ratplus-convert --force --heads 4 tests/golden/data/model/checkpoint.pth "$MODEL"
    echo "Its weights are random: it is there to check numbers, so the text below is noise."
    echo "What to look at is the cache and the speed of each variant beside those of dense attention."
fi

say "5. One prompt, three kinds of attention"
# A prompt long enough to tell the caches apart.
head -c 3000 README.md >build/prompt.txt
./build/samples/run/ratplus-run "$MODEL" --compare dense,d4w16s4,d16w32s4 \
    --file build/prompt.txt --tokens 48 "$@"

say "Next"
cat <<'TEXT'
  a model that speaks   samples/convert/ratplus-convert rat-1b.pth rat-1b --tokenizer tokenizer.model
                        MODEL=rat-1b sh samples/quickstart.sh -- --compare dense,d16w256s4,d64w256s4
  every option          build/samples/run/ratplus-run --help
  speed of this device  build/samples/bench/ratplus-bench
  use it in an engine   README.md, "Embed it"; abi/ratplus.h
  all tests             sh tests/run.sh
TEXT
