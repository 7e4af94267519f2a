#!/usr/bin/env bash
# Measures what a hit costs in the reverse proxy. It compares the requests per second of four servers, each of which sends
# the same head and body: a bare hyper server, the proxy with the response in memory, the proxy with the response in a
# SQLite file that it reads in the task, and nginx with the response in its cache on disk. Each server runs on one core, and
# wrk on another. The servers are measured alternately, and the median counts. The processor time per request is printed as
# well, because it changes less on a machine that has other work to do. If wrk or nginx is missing, the script installs it
# from Debian's packages when it runs as root; without nginx its rows are left out.
# Usage: benches/proxy.sh [SECONDS] [ROUNDS]
#   SECONDS  the time of each measurement; default: 5
#   ROUNDS   how often each server is measured; default: 3
#   The variable SIZES sets other body lengths, such as SIZES="1024 4096".
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-5}
rounds=${2:-3}

for tool in wrk nginx; do
  if ! command -v "$tool" >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    (apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$tool") >/dev/null 2>&1 || true
  fi
done
for tool in wrk taskset curl; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: install it first" >&2; exit 1; }
done
names=(bare memory sqlite)
if command -v nginx >/dev/null; then names+=(nginx); else echo 'nginx is missing, and left out' >&2; fi

cargo build -q --release --example reverse_proxy --features sqlite
program=${CARGO_TARGET_DIR:-target}/release/examples/reverse_proxy
scratch=$(mktemp -d)
declare -A urls ids
stop_servers() {
  for id in "${ids[@]}"; do kill "$id" 2>/dev/null || true; done
  wait
  ids=()
}
trap 'stop_servers; rm -rf "$scratch"' EXIT

# Starts the example on core 0, and sets its URL: start NAME ARGUMENT…
start() {
  local name=$1
  shift
  taskset -c 0 "$program" --listen 127.0.0.1:0 --threads 1 "$@" >"$scratch/$name" &
  ids[$name]=$!
  until grep -q '^listening on ' "$scratch/$name"; do
    kill -0 "${ids[$name]}" || { echo "$name did not start" >&2; exit 1; }
    sleep 0.05
  done
  urls[$name]=$(sed -n 's/^listening on //p' "$scratch/$name")/
}

# Starts nginx on core 0 with one process, in front of an origin: start_nginx ORIGIN
start_nginx() {
  local port
  # nginx cannot print a port that it chose itself.
  port=$((20000 + RANDOM % 10000))
  cat >"$scratch/nginx.conf" <<END
daemon off;
master_process off;
pid $scratch/nginx.pid;
error_log $scratch/nginx.log;
events {}
http {
  access_log off;
  sendfile on;
  keepalive_requests 1000000000;
  client_body_temp_path $scratch/nginx-client;
  proxy_temp_path $scratch/nginx-proxy;
  fastcgi_temp_path $scratch/nginx-fastcgi;
  uwsgi_temp_path $scratch/nginx-uwsgi;
  scgi_temp_path $scratch/nginx-scgi;
  proxy_cache_path $scratch/nginx-cache keys_zone=bench:1m;
  server {
    listen 127.0.0.1:$port;
    location / {
      proxy_pass $1;
      proxy_cache bench;
      add_header X-Cache-Status \$upstream_cache_status;
    }
  }
}
END
  taskset -c 0 nginx -c "$scratch/nginx.conf" 2>"$scratch/nginx.stderr" &
  ids[nginx]=$!
  urls[nginx]=http://127.0.0.1:$port/
  until curl -fs -o "$scratch/body" "${urls[nginx]}"; do
    kill -0 "${ids[nginx]}" || { cat "$scratch/nginx.stderr" >&2; exit 1; }
    sleep 0.05
  done
}

# Fails unless a server answers from its storage: expect_hit NAME
expect_hit() {
  for _ in $(seq 50); do
    curl -fsS -o "$scratch/body" -D "$scratch/head" "${urls[$1]}"
    grep -qiE '^(cache-status:.*; hit|x-cache-status: hit)' "$scratch/head" && return
    sleep 0.1
  done
  echo "$1 did not store the response: its second answer is no hit" >&2
  exit 1
}

ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }

# Prints requests per second, and microseconds of processor time per request: measure NAME
measure() {
  local before after
  before=$(ticks "${ids[$1]}")
  taskset -c 1 wrk -t1 -c32 -d"${seconds}s" "${urls[$1]}" >"$scratch/wrk"
  after=$(ticks "${ids[$1]}")
  if grep -qE 'Non-2xx|Socket errors' "$scratch/wrk"; then cat "$scratch/wrk" >&2; exit 1; fi
  awk -v ticks=$((after - before)) -v rate="$(getconf CLK_TCK)" \
    '/ requests in / {count = $1} /^Requests\/sec/ {print $2, ticks * 1e6 / rate / count}' "$scratch/wrk"
}

# Prints the median of a column: median COLUMN FILE
median() { awk -v column="$1" '{print $column}' "$2" | sort -n | awk '{all[NR] = $1} END {print all[int((NR + 1) / 2)]}'; }

printf '%-8s | %-7s | %9s %7s %8s | %9s\n' body server req/s '× bare' '× nginx' 'cpu us'
for size in ${SIZES:-1024 65536 1048576}; do
  start bare --bare "$size"
  origin=${urls[bare]%/}
  urls[bare]=$origin/as-a-hit
  start memory --origin "$origin"
  start sqlite --origin "$origin" --storage "sqlite:$scratch/$size.sqlite?read_in_task=true"
  if [[ " ${names[*]} " == *' nginx '* ]]; then start_nginx "$origin"; fi
  for name in "${names[@]:1}"; do expect_hit "$name"; done
  for name in "${names[@]}"; do : >"$scratch/$name.rounds"; done
  for _ in $(seq "$rounds"); do
    for name in "${names[@]}"; do measure "$name" >>"$scratch/$name.rounds"; done
  done
  stop_servers
  bare=$(median 1 "$scratch/bare.rounds")
  nginx=$([ -e "$scratch/nginx.rounds" ] && median 1 "$scratch/nginx.rounds" || echo 0)
  for name in "${names[@]}"; do
    echo "$size $name $(median 1 "$scratch/$name.rounds") $(median 2 "$scratch/$name.rounds") $bare $nginx" | awk '{
      nginx = $6 > 0 ? sprintf("%.2f", $3 / $6) : "-"
      printf "%4d KiB | %-7s | %9.0f %7.2f %8s | %9.2f\n", $1 / 1024, $2, $3, $3 / $5, nginx, $4 }'
  done
  rm -rf "$scratch/nginx-cache"
done
