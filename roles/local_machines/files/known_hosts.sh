#!/bin/sh
# known_hosts.sh LXC_PATH
# Prints the known_hosts line of every machine, read from the machines' file systems.
set -eu
cd "$1"
for key in */upper/etc/ssh/ssh_host_ed25519_key.pub; do
  [ -e "$key" ] || continue
  address=$(sed -n 's|^lxc.net.0.ipv4.address = \(.*\)/.*|\1|p' "${key%%/*}/config")
  echo "$address $(cut -d ' ' -f 1,2 "$key")"
done
