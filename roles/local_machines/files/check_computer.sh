#!/bin/sh
# check_computer.sh
# Prints one sentence for each thing that this computer lacks to hold the test machines; on
# the last line "name servers: FILE", the list that the machines can use.
set -u
[ "$(id -u)" = 0 ] || echo "Run it as root: containers, a bridge and firewall rules need it."
[ "$(uname -s)" = Linux ] || echo "Run it on Linux; elsewhere use the Vagrantfile."

missing=
for pair in lxc-start:lxc lxc-info:lxc mmdebstrap:mmdebstrap iptables:iptables ip:iproute2 ss:iproute2 \
            ssh:openssh-client ssh-keygen:openssh-client flock:util-linux; do
  command -v "${pair%%:*}" >/dev/null && continue
  case " $missing " in *" ${pair#*:} "*) ;; *) missing="$missing ${pair#*:}" ;; esac
done
[ -z "$missing" ] || echo "Install what is missing: apt-get install$missing."

grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null ||
  echo "The kernel has no overlay file system: load or build it (modprobe overlay)."

# A stub resolver on the loopback address is not reachable from a machine.
found=
for file in /etc/resolv.conf /run/systemd/resolve/resolv.conf; do
  [ -n "$found" ] && continue
  if grep -q '^nameserver' "$file" 2>/dev/null && ! grep -qE '^nameserver +(127\.|::1)' "$file"; then
    found=$file
  fi
done
[ -n "$found" ] || echo "No name server but a loopback one is known: name one in /etc/resolv.conf."
echo "name servers: $found"
