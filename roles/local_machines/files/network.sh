#!/bin/sh
# network.sh up|down BRIDGE SUBNET GATEWAY
# Makes or removes the private network of the test machines: the bridge, the way out for
# its machines, and the route that refuses packets while the bridge is away.
# Prints "changed" or "unchanged". Twice is fine.
set -eu
verb=$1 bridge=$2 subnet=$3 gateway=$4
# Any real route outranks this metric: the refusal answers only while the bridge is away.
refuse_metric=4278198272
# One file for all networks of this kind, lost at a reboot together with them.
forward_before=/run/deskline-local/ip_forward.before
changed=

refusal_exists() { ip route show type unreachable | grep -qF "$subnet "; }
bridge_exists() { ip link show dev "$bridge" >/dev/null 2>&1; }

# each_rule COMMAND: runs COMMAND TABLE CHAIN RULE… for every firewall rule of this network.
each_rule() {
  note="deskline: $bridge"
  "$1" nat POSTROUTING -s "$subnet" ! -d "$subnet" -m comment --comment "$note" -j MASQUERADE
  "$1" filter FORWARD -i "$bridge" -m comment --comment "$note" -j ACCEPT
  "$1" filter FORWARD -o "$bridge" -m comment --comment "$note" -j ACCEPT
}
have_rule() { table=$1; shift; iptables -w 10 -t "$table" -C "$@" 2>/dev/null; }
add_rule() {
  have_rule "$@" && return 0
  table=$1; shift
  iptables -w 10 -t "$table" -I "$@"
  changed=1
}
delete_rule() {
  while have_rule "$@"; do
    (table=$1; shift; iptables -w 10 -t "$table" -D "$@")
    changed=1
  done
}

up() {
  # The order is the point: without the bridge, packets for its machines would leave by the
  # default route, to strangers.
  if ! refusal_exists; then
    ip route add unreachable "$subnet" metric "$refuse_metric"
    changed=1
  fi
  if ! bridge_exists; then
    ip link add "$bridge" type bridge
    changed=1
  fi
  outward=$(ip route show default | sed -n 's/.* dev \([^ ]*\).*/\1/p;q')
  [ -z "$outward" ] || ip link set dev "$bridge" mtu "$(cat "/sys/class/net/$outward/mtu")"
  ip address replace "$gateway/${subnet#*/}" dev "$bridge"
  ip link set dev "$bridge" up

  if [ ! -e "$forward_before" ]; then
    mkdir -p "${forward_before%/*}"
    cat /proc/sys/net/ipv4/ip_forward > "$forward_before.new"
    mv "$forward_before.new" "$forward_before"
  fi
  if [ "$(cat /proc/sys/net/ipv4/ip_forward)" != 1 ]; then
    echo 1 > /proc/sys/net/ipv4/ip_forward
    changed=1
  fi
  each_rule add_rule
}

down() {
  if command -v iptables >/dev/null; then
    each_rule delete_rule
    # The last network of this kind puts the computer's own setting back.
    if [ -e "$forward_before" ] && ! iptables -w 10 -t nat -S POSTROUTING | grep -qF '"deskline: '; then
      cat "$forward_before" > /proc/sys/net/ipv4/ip_forward
      rm -f "$forward_before"
      rmdir "${forward_before%/*}" 2>/dev/null || true
      changed=1
    fi
  fi
  if bridge_exists; then
    ip link delete dev "$bridge" type bridge
    changed=1
  fi
  # Last of all: until here a late packet is refused and not sent away. A connection that
  # somebody left open would send more of them, so those are cut first.
  ss --kill --tcp --no-header dst "$subnet" >/dev/null
  while refusal_exists; do
    ip route delete unreachable "$subnet"
    changed=1
  done
}

case $verb in
  up | down) "$verb" ;;
  *) echo "usage: network.sh up|down BRIDGE SUBNET GATEWAY" >&2; exit 2 ;;
esac
[ -n "$changed" ] && echo changed || echo unchanged
