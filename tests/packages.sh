#!/usr/bin/env bash
# packages.sh NAME...   Install those Debian packages that are missing; needs root and apt-get.
# Without a network it says so and goes on: the tests that need them skip.
set -euo pipefail
missing=()
for name in "$@"; do
  dpkg-query --show --showformat='${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || missing+=("$name")
done
[ ${#missing[@]} -gt 0 ] || exit 0
export DEBIAN_FRONTEND=noninteractive
echo "installing ${missing[*]}"
if ! { apt-get -qq update && apt-get -qq install --yes --no-install-recommends "${missing[@]}"; } >/dev/null; then
  echo "could not install ${missing[*]}: tests that need them will be skipped"
fi
