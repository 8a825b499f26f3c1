#!/bin/sh
# Prints the path of SwiftShader's vk_swiftshader_icd.json: a second Vulkan
# device on the CPU, with little more than the baseline features. It comes out
# of Debian's chromium packages, and is kept under .cache/.
#
#     VK_ICD_FILENAMES=$(sh tests/swiftshader.sh) ratplus-info
set -eu
cd "$(dirname "$0")/.."
folder=$PWD/.cache/swiftshader
manifest=$folder/vk_swiftshader_icd.json
if [ ! -f "$manifest" ] || [ ! -f "$folder/libvk_swiftshader.so" ]; then
    mkdir -p "$folder"
    work=$(mktemp -d "$folder/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # Versions differ in which of the two has it.
    for package in chromium-common chromium; do
        (cd "$work" && apt-get download -qq "$package") >&2 2>/dev/null || continue
        dpkg-deb --fsys-tarfile "$work/$package"_*.deb | tar -x -C "$work" --wildcards \
            '*/libvk_swiftshader.so' '*/vk_swiftshader_icd.json' 2>/dev/null && break
    done
    library=$(find "$work" -name libvk_swiftshader.so)
    if [ -z "$library" ]; then
        echo "swiftshader.sh: chromium-common could not be fetched; try apt-get update" >&2
        exit 1
    fi
    mv "$library" "$folder/libvk_swiftshader.so"
    mv "$(find "$work" -name vk_swiftshader_icd.json)" "$manifest"
fi
echo "$manifest"
