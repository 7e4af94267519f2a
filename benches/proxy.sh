#!/usr/bin/env bash
# Measures what a hit costs in the reverse proxy. It compares the requests per second of a bare hyper server with those
# of the proxy, which has the same head and body stored in memory. Each server runs on one core, and wrk on another.
# Both servers are measured alternately, and the best round counts. The processor time per request is printed as well,
# because it stays the same on a machine that has other work to do. If wrk is missing, the script installs it
# from Debian's packages when it runs as root.
# Usage: benches/proxy.sh [SECONDS] [ROUNDS]
#   SECONDS  the time of each measurement; default: 5
#   ROUNDS   how often each server is measured; default: 2
#   The variable SIZES sets other body lengths, such as SIZES="1024 4096".
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

# Starts the program on core 0, and sets $url: start NAME ARGUMENT…
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

ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }

# Prints requests per second, and microseconds of processor time per request: measure PROCESS URL
measure() {
  local before after
  before=$(ticks "$1")
  taskset -c 1 wrk -t1 -c32 -d"${seconds}s" "$2" >"$scratch/wrk"
  after=$(ticks "$1")
  if grep -qE 'Non-2xx|Socket errors' "$scratch/wrk"; then cat "$scratch/wrk" >&2; exit 1; fi
  awk -v ticks=$((after - before)) -v rate="$(getconf CLK_TCK)" \
    '/ requests in / {count = $1} /^Requests\/sec/ {print $2, ticks * 1e6 / rate / count}' "$scratch/wrk"
}

# Prints the best value of each column: the highest rate and the lowest time.
best() { awk 'NR == 1 {a = $1; b = $2} {if ($1 > a) a = $1; if ($2 < b) b = $2} END {print a, b}' "$1"; }

printf '%-8s | %12s %12s %6s | %12s %12s %6s\n' \
  body 'bare, req/s' 'proxy, req/s' ratio 'bare, cpu us' 'proxy, cpu us' ratio
for size in ${SIZES:-1024 65536 1048576}; do
  start bare --bare "$size"
  bare_url=$url
  bare_id=${servers[-1]}
  start proxy --origin "${bare_url%/}"
  proxy_url=$url
  proxy_id=${servers[-1]}
  curl -fsS -o "$scratch/body" "$proxy_url"
  curl -fsS -o "$scratch/body" -D "$scratch/head" "$proxy_url"
  grep -qi '^cache-status:.*; hit' "$scratch/head" ||
    { echo "the proxy did not store the response: its second answer is no hit" >&2; exit 1; }
  : >"$scratch/bare.rounds"
  : >"$scratch/proxy.rounds"
  for _ in $(seq "$rounds"); do
    measure "$bare_id" "${bare_url}as-a-hit" >>"$scratch/bare.rounds"
    measure "$proxy_id" "$proxy_url" >>"$scratch/proxy.rounds"
  done
  stop_servers
  echo "$size $(best "$scratch/bare.rounds") $(best "$scratch/proxy.rounds")" | awk '{
    printf "%4d KiB | %12.0f %12.0f %6.2f | %12.2f %13.2f %6.2f\n", $1 / 1024, $2, $4, $4 / $2, $3, $5, $3 / $5 }'
done
