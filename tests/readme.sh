#!/bin/sh
# The picture in README.md is what its program draws, and the files that README.md
# links to are there. Usage: readme.sh ROOT
set -u
cd "$1" || exit 1
bad=0

python3 docs/patterns.py | cmp - docs/patterns.svg || {
    echo "docs/patterns.svg is not what docs/patterns.py draws"
    bad=1
}
for path in $(sed -n 's/.*](\([^)#]*\)).*/\1/p' README.md | grep -v '^https*:'); do
    [ -e "$path" ] || {
        echo "README.md links to $path, which is not there"
        bad=1
    }
done
exit $bad
