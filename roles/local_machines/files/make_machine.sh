#!/bin/sh
# make_machine.sh LXC_PATH NAME HOST_NAME PUBLIC_KEY_FILE RESOLV_CONF < CONFIG
# Makes the container NAME on the base root that CONFIG names, unless it is there complete,
# and starts it. Prints "made", "started" or "kept".
set -eu
lxc_path=$1 name=$2 host_name=$3 public_key=$4 resolv_conf=$5
machine=$lxc_path/$name
here=$(dirname "$0")
config=$(cat)
answer=kept

if [ ! -e "$machine/complete" ]; then
  "$here/remove_machine.sh" "$lxc_path" "$name" >/dev/null
  answer=made
  umask 022
  # The upper directory's own mode is that of / in the machine.
  mkdir -p "$machine/upper/etc/ssh" "$machine/upper/root/.ssh"
  chmod 0700 "$machine/upper/root" "$machine/upper/root/.ssh"
  printf '%s\n' "$config" > "$machine/config"
  ssh-keygen -q -t ed25519 -N '' -C "root@$host_name" -f "$machine/upper/etc/ssh/ssh_host_ed25519_key"
  install -m 0600 "$public_key" "$machine/upper/root/.ssh/authorized_keys"
  printf '%s\n' "$host_name" > "$machine/upper/etc/hostname"
  install -m 0644 "$resolv_conf" "$machine/upper/etc/resolv.conf"
  sync -f "$machine"
  : > "$machine/complete"
fi

if [ "$(lxc-info -P "$lxc_path" -n "$name" -sH)" != RUNNING ]; then
  # After a reboot, or a kill of the monitor: start from no processes and no control groups.
  "$here/remove_machine.sh" --keep-files "$lxc_path" "$name" >/dev/null
  lxc-start -P "$lxc_path" -n "$name" --daemon
  [ "$answer" = made ] || answer=started
fi
echo "$answer"
