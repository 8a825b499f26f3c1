# Sourced by run.sh: a Debian sid root with llama.cpp, in $sid; $sid_why says why there is none.
. samples/packages.sh
sid=${RATPLUS_SID:-$PWD/.cache/sid}
build=$PWD/build-llama
sid_packages='llama.cpp llama.cpp-tools libllama-dev libggml-dev libggml0-backend-vulkan
    mesa-vulkan-drivers vulkan-validationlayers python3-gguf python3-numpy gcc libc6-dev meson
    ninja-build pkgconf glslang-tools libvulkan-dev libvulkan-volk-dev libvulkan1 libcjson-dev
    zlib1g-dev'
# A root that is made has these too; checks that need them are skipped in one without.
sid_more='llama.cpp-tools-extra llama.cpp-examples'
# Of several the newest, which comes last.
sid_known=$(sed -n 's/^static const char \*const known.*"\(.*\)"};$/\1/p' adapters/ggml/version.c)

# The version of ggml in the root.
sid_ggml() {
    chroot "$sid" dpkg-query -W -f '${Version}' libggml-dev 2>/dev/null | sed 's/^[0-9]*://; s/-.*//'
}

# A root of ours is whole once it says which packages it was made for. One whose
# ggml is older than the adapter's is made again; a newer one is what Debian has now.
sid_is_whole() {
    [ "$(cat "$sid/ratplus-packages" 2>/dev/null)" = "$sid_packages $sid_more" ] &&
        dpkg --compare-versions "$(sid_ggml)" ge "$sid_known"
}

sid_root() {
    sid_why='a Debian root can be entered by root alone'
    [ "$(id -u)" -eq 0 ] || return 1
    sid_why='this machine lets nobody mount here'
    [ -n "${RATPLUS_MOUNTS:-}" ] || return 1
    if [ -n "${RATPLUS_SID:-}" ]; then
        sid_why="$sid, which RATPLUS_SID names, lacks one of these: $(echo $sid_packages)"
        chroot "$sid" dpkg-query -W $sid_packages >/dev/null 2>&1
        return
    fi
    sid_is_whole || sid_make
}

# Mounts are those of this process alone, so nobody else's go with them.
sid_remove() {
    for folder in ratplus proc dev; do
        umount -R "$sid/$folder" 2>/dev/null
    done
    rm -rf --one-file-system "$sid"
}

# From the mirror of this machine's own packages, and through the same proxy.
sid_make() {
    sid_why='there is no debootstrap to make a Debian sid root with'
    need_packages debootstrap debian-archive-keyring || return 1
    mirror=$(apt-get update --print-uris 2>/dev/null |
        sed -nE "s,^'(https?://.*/debian/)dists/.*,\\1,p" | head -n 1)
    sid_why='no apt source of this machine is a mirror of Debian'
    [ -n "$mirror" ] || return 1
    eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
    [ -z "${http_proxy:-}" ] || export http_proxy
    echo "Making a Debian sid root in $sid"
    log=$sid.txt
    sid_why="the remains of a Debian root in $sid cannot be removed"
    sid_remove 2>/dev/null && mkdir -p "$sid" || return 1
    timeout 240 debootstrap --variant=minbase sid "$sid" "$mirror" >"$log" 2>&1 &&
        sid_mount >>"$log" 2>&1 && sid_install >>"$log" 2>&1 || {
        sid_why="a Debian sid root could not be made; $log ends: $(tail -n 1 "$log")"
        return 1
    }
    echo "$sid_packages $sid_more" >"$sid/ratplus-packages"
}

sid_install() {
    # A root that is cut off is thrown away, so dpkg need not wait for the disk.
    echo force-unsafe-io >"$sid/etc/dpkg/dpkg.cfg.d/ratplus"
    timeout 120 chroot "$sid" apt-get -o Acquire::Check-Valid-Until=false update -qq || return 1
    timeout 240 chroot "$sid" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $sid_packages $sid_more
}

sid_mount() {
    mountpoint -q "$sid/proc" || mount --bind /proc "$sid/proc" || return 1
    mountpoint -q "$sid/dev/shm" || mount --rbind /dev "$sid/dev"
}

sid_enter() {
    sid_why='this tree cannot be mounted in the Debian sid root'
    mkdir -p "$sid/ratplus" "$build" || return 1
    mount --bind "$PWD" "$sid/ratplus" 2>/dev/null && sid_mount 2>/dev/null
}
