#!/usr/bin/env bash
# What a hit costs in the reverse proxy: requests a second of a bare hyper server, and of the proxy when it has the same
# bytes, head and body, stored in memory. Each server has one core to itself and wrk another; the two are measured in
# turns, and the best of the rounds counts. Installs wrk from Debian's packages where it may.
# Usage: benches/proxy.sh [SECONDS a cell, default 5] [ROUNDS, default 2]; SIZES="1024 …": other bodies
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-5}
rounds=${2:-2}

if ! command -v wrk >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  (apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends wrk) >/dev/null 2>&1 || true
fi
for tool in wrk taskset curl; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: install it first" >&2; exit 1; }
done

cargo build -q --release --example reverse_proxy --features sqlite
program=${CARGO_TARGET_DIR:-target}/release/examples/reverse_proxy
scratch=$(mktemp -d)
servers=()
stop_servers() {
  for id in "${servers[@]}"; do kill "$id" 2>/dev/null || true; done
  wait
  servers=()
}
trap 'stop_servers; rm -rf "$scratch"' EXIT

# start NAME ARGUMENT…: starts the program on core 0, and leaves its URL in $url.
start() {
  local name=$1
  shift
  taskset -c 0 "$program" --listen 127.0.0.1:0 --threads 1 "$@" >"$scratch/$name" &
  servers+=($!)
  until grep -q '^listening on ' "$scratch/$name"; do
    kill -0 "${servers[-1]}" || { echo "$name did not start" >&2; exit 1; }
    sleep 0.05
  done
  url=$(sed -n 's/^listening on //p' "$scratch/$name")/
}

measure() {
  taskset -c 1 wrk -t1 -c32 -d"${seconds}s" "$1" >"$scratch/wrk"
  if grep -qE 'Non-2xx|Socket errors' "$scratch/wrk"; then cat "$scratch/wrk" >&2; exit 1; fi
  awk '/^Requests\/sec/ {print $2}' "$scratch/wrk"
}

larger() { awk -v a="$1" -v b="$2" 'BEGIN {print (a > b ? a : b)}'; }

printf '%-8s %14s %14s %8s\n' body 'bare, req/s' 'proxy, req/s' ratio
for size in ${SIZES:-1024 65536 1048576}; do
  start bare --bare "$size"
  bare_url=$url
  start proxy --origin "${bare_url%/}"
  proxy_url=$url
  curl -fsS -o "$scratch/body" "$proxy_url"
  curl -fsS -o "$scratch/body" -D "$scratch/head" "$proxy_url"
  grep -qi '^cache-status:.*; hit' "$scratch/head" || { echo "the response is not stored" >&2; exit 1; }
  bare=0
  proxy=0
  for _ in $(seq "$rounds"); do
    bare=$(larger "$(measure "${bare_url}as-a-hit")" "$bare")
    proxy=$(larger "$(measure "$proxy_url")" "$proxy")
  done
  stop_servers
  awk -v size="$size" -v bare="$bare" -v proxy="$proxy" \
    'BEGIN {printf "%4d KiB %14.0f %14.0f %8.2f\n", size / 1024, bare, proxy, proxy / bare}'
done
