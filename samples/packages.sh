# Sourced by samples/quickstart.sh and tests/run.sh: installs missing Debian packages.

# need_packages NAME...: returns 1, and says what to install, when it cannot.
need_packages() {
    missing=
    for package in "$@"; do
        case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
            *' installed') ;;
            *) missing="$missing $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "No apt-get here. On Debian 12 these packages are needed:$missing" >&2
        return 1
    fi
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null 2>&1; then
            echo "These packages are missing; install them as root: apt-get install$missing" >&2
            return 1
        fi
        as_root=sudo
    fi
    echo "Installing:$missing"
    # The lists may be older than the mirror, or not there: one retry after an update.
    if ! $as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1; then
        $as_root apt-get update -qq >/dev/null &&
        $as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends $missing >/dev/null || {
            echo "These packages could not be installed:$missing" >&2
            return 1
        }
    fi
}

# What it takes to build the library and the samples.
build_packages='gcc libc6-dev meson ninja-build pkg-config glslang-tools libvulkan-dev
    libvulkan-volk-dev libcjson-dev zlib1g-dev g++ libsentencepiece-dev'
# What the samples use when they run.
sample_packages='python3 python3-numpy libvulkan1 mesa-vulkan-drivers'
# What the tests need beside these.
test_packages='vulkan-validationlayers python3-torch'
