# Sourced by run.sh: a Debian sid root with llama.cpp, in $sid; $sid_why says why there is none.
sid=${RATPLUS_SID:-$PWD/.cache/sid}
build=$PWD/build-llama
sid_packages='llama.cpp llama.cpp-tools libggml-dev libllama-dev python3-gguf python3-numpy gcc libc6-dev meson
    ninja-build pkgconf glslang-tools libvulkan-dev libvulkan-volk-dev libvulkan1 libcjson-dev zlib1g-dev'

sid_root() {
    sid_why='a root can be entered by root alone'
    [ "$(id -u)" -eq 0 ] || return 1
    [ -x "$sid/usr/bin/apt-get" ] && return 0
    sid_why='there is no debootstrap to make a Debian sid root with'
    command -v debootstrap >/dev/null 2>&1 || return 1
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
        grep -v '^#' | grep -oE 'https?://[^ ]+/debian/?' | head -n 1)
    sid_why="a Debian sid root could not be made from ${mirror:-an unknown mirror}"
    # Under another name until it is whole.
    [ -n "$mirror" ] && rm -rf "$sid.new" && mkdir -p "$sid.new" &&
        debootstrap --variant=minbase sid "$sid.new" "$mirror" >/dev/null 2>&1 && mv "$sid.new" "$sid"
}

sid_install() {
    sid_why='llama.cpp could not be installed in the Debian sid root'
    chroot "$sid" dpkg-query -W $sid_packages >/dev/null 2>&1 && return 0
    chroot "$sid" apt-get -o Acquire::Check-Valid-Until=false update -qq >/dev/null 2>&1
    chroot "$sid" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $sid_packages >/dev/null 2>&1
}

# In a mount namespace of its own, which ends with this process.
sid_enter() {
    sid_why='this tree cannot be mounted in the Debian sid root'
    mkdir -p "$sid/ratplus" "$build" || return 1
    mount --bind "$PWD" "$sid/ratplus" 2>/dev/null || return 1
    mountpoint -q "$sid/proc" || mount --bind /proc "$sid/proc"
}
