#!/bin/bash
# Install the tools that the benchmark compares backy with, on Debian.
#
#   usage: peers.sh VENV          (root for the Debian packages; without root they must be there already)
#
#   VENV/bin/borg    borgbackup 1.4, built against Debian's libraries
#   VENV/bin/benji   benji 0.17, the last one that PyPI has
#   restic           Debian's package
#
# bench/run.py looks in bench/work/peers by itself. Run again it changes nothing that is in place.
set -euo pipefail

if [ "${1:-}" = "" ] || [ "${1#-}" != "$1" ]; then
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"
    exit 2
fi
VENV=$1
export PIP_DISABLE_PIP_VERSION_CHECK=1
PACKAGES=(
    restic python3-venv python3-dev gcc pkg-config
    libacl1-dev libssl-dev liblz4-dev libzstd-dev libxxhash-dev     # for borg
)

install_packages() {
    local missing=() package
    for package in "${PACKAGES[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ]; then
        echo "peers.sh: as root: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}"
}

# benji's own requirements, read from its metadata, but for two:
# ruamel.yaml <0.16 does not compile on Python 3.11; 0.17 is the last one that still has the load() benji calls.
# psycopg2 is for PostgreSQL only; the benchmark uses SQLite.
benji_requirements() {
    "$VENV/bin/python" - <<'EOF'
import importlib.metadata
import re

for requirement in importlib.metadata.requires("benji") or ():
    if "extra ==" not in requirement and not re.match(r"ruamel|psycopg2", requirement):
        print(requirement)
print("ruamel.yaml <0.18")
print("zstandard")
EOF
}

pip_install() {
    "$VENV/bin/python" -m pip install -qq "$@"
}

# A backup and a restore of 1 MiB: shows that benji runs with requirements that are not quite its own.
try_benji() {
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    mkdir "$folder/data"
    cat > "$folder/benji.yaml" <<EOF
configurationVersion: "1"
databaseEngine: "sqlite:///$folder/db"
defaultStorage: data
storages: [{name: data, storageId: 1, module: file, configuration: {path: "$folder/data", activeTransforms: [zstd]}}]
transforms: [{name: zstd, module: zstd, configuration: {}}]
ios: [{name: file, module: file, configuration: {}}]
EOF
    head -c 1048576 /dev/urandom > "$folder/image"
    in_benji() { "$VENV/bin/benji" -c "$folder/benji.yaml" --log-level ERROR "$@"; }
    in_benji database-init >/dev/null
    in_benji backup -u one "file:$folder/image" image >/dev/null
    in_benji restore one "file:$folder/restored" >/dev/null
    cmp "$folder/image" "$folder/restored"
    in_benji -m version-info | sed -n 's/^ *"version": "\(.*\)",/benji \1/p'
}

install_packages
[ -x "$VENV/bin/python" ] || python3 -m venv "$VENV"
pip_install 'borgbackup ==1.4.*'
pip_install --no-deps 'benji ==0.17.0'
benji_requirements > "$VENV/benji-requirements.txt"
# pip would complain that benji's pins are not met: they are not, knowingly.
pip_install -r "$VENV/benji-requirements.txt" 2> >(grep -v -e 'dependency resolver' -e '^benji 0' >&2)

"$VENV/bin/borg" --version
try_benji
restic version
