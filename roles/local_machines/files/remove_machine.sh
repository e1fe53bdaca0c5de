#!/bin/sh
# remove_machine.sh [--keep-files] LXC_PATH NAME
# Stops the container NAME, whatever state a killed run left it in, and removes its control
# groups and, unless told to keep them, its files. Prints "removed" or "absent".
set -eu
keep_files=
[ "$1" = --keep-files ] && { keep_files=1; shift; }
lxc_path=$1 name=$2
found=
control_groups() {
  for top in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ -d "$top/deskline/$name" ] && echo "$top/deskline/$name"
  done
  return 0
}

if [ -e "$lxc_path/$name/config" ]; then
  # Connections from this computer (ssh keeps some open) would go on sending after the machine.
  address=$(sed -n 's|^lxc.net.0.ipv4.address = \(.*\)/.*|\1|p' "$lxc_path/$name/config")
  [ -z "$address" ] || ss --kill --tcp --no-header dst "$address" >/dev/null
fi
if [ -e "$lxc_path/$name/config" ] && [ "$(lxc-info -P "$lxc_path" -n "$name" -sH)" != STOPPED ]; then
  found=1
  timeout 20 lxc-stop -P "$lxc_path" -n "$name" -k || true
fi

# A container whose monitor was killed is "STOPPED" to LXC and runs on: its processes are
# still in the control group that bears its name.
for attempt in $(seq 50); do
  left=$(for group in $(control_groups); do
    find "$group" -name cgroup.procs -exec cat {} +
  done | sort -u)
  [ -z "$left" ] && break
  found=1
  kill -KILL $left 2>/dev/null || true
  sleep 0.1
done
[ -z "$left" ] || { echo "Processes of $name do not end: $left" >&2; exit 1; }
for group in $(control_groups); do
  found=1
  # The kernel may need a moment after the last process.
  for attempt in $(seq 50); do
    find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
    sleep 0.1
  done
  [ ! -d "$group" ] || { echo "The control group $group cannot be removed." >&2; exit 1; }
  rmdir "${group%/*}" 2>/dev/null || true
done

if [ -z "$keep_files" ] && [ -d "$lxc_path/$name" ]; then
  found=1
  # Only a run of an older version, or a hand, can have mounted something here.
  awk -v dir="$lxc_path/$name/" 'index($5, dir) == 1 {print $5}' /proc/self/mountinfo | sort -r |
    while read -r mount_point; do umount -l "$mount_point"; done
  rm -rf --one-file-system "${lxc_path:?}/$name"
fi
[ -n "$found" ] && echo removed || echo absent
