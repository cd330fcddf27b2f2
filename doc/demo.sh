#!/usr/bin/env bash
# The five-minute tour, run for real: every command is printed before it runs. Called by `make demo`.
# Makes an ext4 disk image from files on this machine, in ./demo, and leaves nothing anywhere else.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf demo && mkdir demo && cd demo

run() {
  local word shown=''
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:,=+-]+$ ]] || word=${word@Q}
    shown+=" $word"
  done
  printf '\n\033[1m$%s\033[0m\n' "$shown"
  "$@"
}
say() { printf '\n# %s\n' "$*"; }

say "A disk of 512 MiB with a file system on it, as a virtual machine would have it."
run mke2fs -q -t ext4 -L root -d "$(python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')" vm01.raw 512M

say "A job for it. The repository is made on the way; 'vm01' is the job."
run backy -b backups/vm01 init file vm01.raw

say "The first backup reads all data, and stores each chunk of 4 MiB once, compressed."
run backy -b backups/vm01 backup daily
before=$(sha256sum < vm01.raw)

say "The machine works on: a file is added, another removed."
run debugfs -w -R "write $(command -v bash) a-new-program" vm01.raw
run debugfs -w -R "rm click/core.py" vm01.raw

say "The second backup stores only the chunks that changed."
run backy -b backups/vm01 backup daily,manual:before-upgrade
run backy -b backups/vm01 status

say "Restore the latest revision, re-read it from the disk, and compare."
run backy -b backups/vm01 restore --read-back restored.raw
run cmp vm01.raw restored.raw
run e2fsck -fn restored.raw

say "Restore the first one through a pipe, and compare with what the disk was then."
run bash -c "backy -b backups/vm01 restore -r first - | sha256sum | tee first.sha256"
[ "$(cat first.sha256)" = "$before" ] && echo "identical"

say "Prove that everything that was backed up can be restored."
run backy -b backups/vm01 verify

say "Done. It is all in ./demo to play with; 'make clean' removes it."
run backy -b backups status
