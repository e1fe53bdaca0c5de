#!/bin/sh
# base_root.sh DIRECTORY SUITE PACKAGES MIRROR…
# Makes the base root file system of the test machines in DIRECTORY, unless it is there.
# Prints "made" or "kept". A run that was killed leaves only DIRECTORY.partial, which the
# next one removes; one that is still at work is waited for.
set -eu
root=$1 suite=$2 packages=$3
shift 3
[ -d "$root" ] && { echo kept; exit 0; }

mkdir -p "$(dirname "$root")"
exec 9>"$root.lock"
flock -w 900 9 || { echo "Another run has been making $root for 15 minutes; stop it and try again." >&2; exit 1; }
[ -d "$root" ] && { echo kept; exit 0; }

mirror=$(python3 "$(dirname "$0")/pick_mirror.py" first --probe "dists/$suite/InRelease" "$@")
rm -rf --one-file-system "$root.partial"
# Package lists stay, so that a dry run on a fresh machine knows the packages. A machine that
# is made to be thrown away need not wait for the disk. The keys that sshd made would be the same
# on every copy of this root: each machine gets its own.
mmdebstrap --quiet --mode=root --format=directory --variant=minbase --include="$packages" \
  --customize-hook='rm -f "$1"/etc/ssh/ssh_host_*' \
  --dpkgopt=force-unsafe-io --aptopt='Acquire::Languages "none"' \
  --skip=cleanup/apt/lists \
  --customize-hook='rm -f "$1"/etc/hostname "$1"/etc/resolv.conf' \
  "$suite" "$root.partial" "$mirror" >&2
mv "$root.partial" "$root"
echo made
