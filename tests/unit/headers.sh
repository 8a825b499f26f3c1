#!/bin/sh
# Each public header compiles alone, in every language that hosts use.
# Usage: headers.sh CC CXX ABI_FOLDER [compiler flags]
cc=$1 cxx=$2 abi=$3
shift 3
warnings="-Wall -Wextra -Wpedantic -Werror -Wstrict-prototypes -Wconversion"
folder=$(mktemp -d) || exit 1
trap 'rm -r "$folder"' EXIT
bad=0
for header in ratplus.h ratplus_types.h ratplus_vulkan.h; do
    # Twice: an include guard that does not work is found too.
    printf '#include <%s>\n#include <%s>\nint main(void) { return 0; }\n' $header $header \
        >"$folder/alone.c"
    cp "$folder/alone.c" "$folder/alone.cpp"
    for std in c99 c11; do
        $cc -std=$std $warnings -I"$abi" "$@" -c "$folder/alone.c" -o "$folder/alone.o" ||
            { echo "$header fails as $std"; bad=1; }
    done
    [ "$cxx" = none ] ||
        $cxx -std=c++17 -Wall -Wextra -Wpedantic -Werror -Wconversion -I"$abi" "$@" \
            -c "$folder/alone.cpp" -o "$folder/alone.o" || { echo "$header fails as c++17"; bad=1; }
done
exit $bad
