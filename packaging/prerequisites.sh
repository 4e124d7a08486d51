#!/bin/bash
# Sees that everything is there that building and testing take: packaging/prerequisites.sh [build|test|ci]
#
# What is missing is installed where that is possible without asking (as root, or by sudo without a password, with
# apt-get); elsewhere it is named with the command to run. Where nothing is missing, nothing is asked of any network.
set -euo pipefail

purpose=${1:-test}
repository=$(cd "$(dirname "$0")/.." && pwd)
# sshd, nginx and fcgiwrap lie where the PATH of ordinary users does not lead.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin:${CARGO_HOME:-$HOME/.cargo}/bin

say() { echo "prerequisites: $*" >&2; }

# Program and Debian package, one pair for each line.
programs() {
    cat <<'LIST'
gcc gcc
make make
pkg-config pkg-config
git git
curl curl
LIST
    [ "$purpose" = build ] && return
    cat <<'LIST'
nginx nginx
fcgiwrap fcgiwrap
script bsdutils
sshd openssh-server
ssh-keygen openssh-client
openssl openssl
puttygen putty-tools
tinyproxy tinyproxy
microsocks microsocks
stunnel stunnel4
openssl openssl
/usr/bin/time time
jq jq
unzip unzip
zstd zstd
python3 python3
node nodejs
npm npm
setpriv util-linux
unshare util-linux
mount mount
git-lfs git-lfs
LIST
    [ "$purpose" = test ] && return
    cat <<'LIST'
g++ g++
systemd-analyze systemd
dpkg-shlibdeps dpkg-dev
LIST
}

missing=()
while read -r program package; do
    command -v "$program" >/dev/null || missing+=("$package")
done < <(programs)
# libssh2 takes its ciphers from OpenSSL, which is found by its headers.
pkg-config --exists openssl 2>/dev/null || missing+=(libssl-dev)
[ -f /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
# A C compiler without the C library's headers is no compiler.
[ -f /usr/include/stdio.h ] || missing+=(libc6-dev)
# Tests keep packages from PyPI in virtual environments, which Debian has split off Python.
[ "$purpose" = build ] || python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

if [ ${#missing[@]} -gt 0 ]; then
    install=(apt-get install --yes --no-install-recommends "${missing[@]}")
    root=()
    if [ "$(id -u)" != 0 ]; then
        root=(sudo -n)
        if ! { command -v sudo && sudo -n true; } >/dev/null 2>&1; then root=(no); fi
    fi
    if ! command -v apt-get >/dev/null || [ "${root[*]}" = no ]; then
        say "missing: ${missing[*]} (names of Debian's packages)"
        say "install them and try again: sudo ${install[*]}"
        exit 1
    fi
    say "installing ${missing[*]}"
    # The packages' own services are of no use here: tests start what they need on ports of their own.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap '"${root[@]}" rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
        "${root[@]}" chmod 755 "$policy"
    fi
    "${root[@]}" apt-get update --quiet >&2
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" >&2
fi

# The toolchain. A user's own installation needs no rights, so it is made for unattended runs and for root.
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repository/Cargo.toml")
has_toolchain() {
    local have
    have=$(cd "$repository" && rustc --version 2>/dev/null | cut -d ' ' -f 2) && [ -n "$have" ] &&
        command -v cargo >/dev/null && printf '%s\n%s\n' "$wanted" "$have" | sort --check=quiet --version-sort
}
if ! has_toolchain; then
    components=(--profile minimal --component clippy --component rustfmt)
    name_it() {
        say "a Rust toolchain, $wanted or newer, is missing; install it and try again:"
        say "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- ${components[*]}"
        say "  (with rustup: rustup toolchain install stable ${components[*]})"
        exit 1
    }
    if [ "$(id -u)" != 0 ] && [ "${CI:-}" != true ]; then name_it; fi
    say "installing a Rust toolchain with rustup"
    if command -v rustup >/dev/null; then
        rustup toolchain install stable "${components[@]}" >&2 || name_it
        rustup default stable >&2
    else
        curl --proto '=https' --tlsv1.2 --retry 3 -sSf https://sh.rustup.rs |
            sh -s -- -y --no-modify-path "${components[@]}" >&2 || name_it
    fi
    hash -r
    has_toolchain || name_it
fi
