#!/bin/sh
# Installs into an empty folder, and builds the README's programs against what
# is there as a stranger would: with pkg-config alone.
# Usage: install.sh ROOT BUILD ABI_MAJOR
set -eu
root=$1 build=$2 major=$3
dest=$(mktemp -d)
trap 'rm -rf "$dest"' EXIT

DESTDIR=$dest meson install -C "$build" --no-rebuild --quiet
pc=$(find "$dest" -name ratplus.pc)
[ -n "$pc" ] || { echo "no ratplus.pc was installed"; exit 1; }
export PKG_CONFIG_LIBDIR="${pc%/*}" PKG_CONFIG_PATH= PKG_CONFIG_SYSROOT_DIR="$dest"
lib=$dest$(PKG_CONFIG_SYSROOT_DIR='' pkg-config --variable=libdir ratplus)
include=$dest$(PKG_CONFIG_SYSROOT_DIR='' pkg-config --variable=includedir ratplus)

for file in "$include/ratplus.h" "$include/ratplus_types.h" "$include/ratplus_vulkan.h" \
        "$lib/libratplus.so" "$lib/libratplus.so.$major"; do
    [ -e "$file" ] || { echo "${file#"$dest"} was not installed"; exit 1; }
done
want=$(sed -n 's/^#define RATP_VERSION "\(.*\)"/\1/p' "$include/ratplus.h")
got=$(pkg-config --modversion ratplus)
[ "$want" = "$got" ] || { echo "ratplus.pc says version $got, the header $want"; exit 1; }

${CC:-cc} -std=c11 -Wall -Wextra -Wpedantic -Werror "$root/samples/embed/embed.c" -o "$dest/embed" \
    $(pkg-config --cflags --libs ratplus)
LD_LIBRARY_PATH=$lib "$dest/embed"
${CC:-cc} -std=c11 -Wall -Wextra -Wpedantic -Werror "$root/samples/host-vulkan/host-vulkan.c" \
    $(pkg-config --cflags --libs ratplus) -lvulkan -lm -o "$dest/host-vulkan"
LD_LIBRARY_PATH=$lib "$dest/host-vulkan" --help
needs=$(LD_LIBRARY_PATH=$lib ldd "$dest/embed" | sed -n 's/^[[:space:]]*\([^ ]*\).*/\1/p')
case $needs in
    *libratplus.so.$major*) ;;
    *) echo "the program is not linked to libratplus.so.$major"; exit 1 ;;
esac
