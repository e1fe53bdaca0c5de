#!/bin/sh
# base_root.sh DIRECTORY SUITE PACKAGES [MIRROR…]
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

rm -rf --one-file-system "$root.partial"
# The keys that sshd made are the same on every copy of this root: each machine gets its own.
mmdebstrap --quiet --mode=root --format=directory --variant=minbase --include="$packages" \
  --customize-hook='rm -f "$1"/etc/ssh/ssh_host_*' \
  --customize-hook='rm -f "$1"/etc/hostname "$1"/etc/resolv.conf' \
  "$suite" "$root.partial" "$@" >&2
mv "$root.partial" "$root"
echo made
