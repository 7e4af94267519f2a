#!/usr/bin/env bash
# Runs every check: format, lints, docs, unit, contract, integration and doc tests, examples, and each bench once.
# Installs nginx, Redis, Java, Maven and HTTP clients from Debian where it may; otherwise skips their tests, and says so.
# The tests start their servers themselves, on free ports and with temporary data, and stop them.
# Usage: tests/run.sh
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
scratch=$(mktemp -d)
export RUST_BACKTRACE=0
# Incremental state costs time and disk, and a build from an empty target directory has no use for it.
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}
began=$SECONDS

# Runs a command, and prints how long it took.
step() {
  local name=$1 from=$SECONDS
  printf '\n== %s\n' "$name"
  shift
  "$@" 2>&1 | tee -a "$log"
  printf -- '-- %s: %s s\n' "$name" "$((SECONDS - from))"
}

# Runs tests beside the steps that follow; `finish` waits for them and shows their output. Returns when the first test
# binary runs: until then cargo holds the lock of the target directory, and the next step would wait for it.
names=()
groups=()
beside() {
  local name=$1 output=$scratch/beside.${#names[@]} from=$SECONDS
  shift
  set -m # a process group of its own, so that it can be ended with all that it starts
  (
    "$@" >"$output" 2>&1 && code=0 || code=$?
    printf -- '-- %s: %s s\n' "$name" "$((SECONDS - from))" >>"$output"
    exit "$code"
  ) &
  set +m
  names+=("$name")
  groups+=($!)
  until grep -q 'Running ' "$output" 2>/dev/null || ! kill -0 $! 2>/dev/null; do sleep 0.2; done
}

finish() {
  local number failed=""
  for number in "${!names[@]}"; do
    printf '\n== %s\n' "${names[number]}"
    wait "${groups[number]}" || failed=1
    tee -a "$log" <"$scratch/beside.$number"
  done
  names=()
  groups=()
  [ -z "$failed" ]
}

clean() {
  for group in "${groups[@]}"; do kill -- "-$group" 2>/dev/null || true; done
  rm -rf "$log" "$scratch"
}
trap clean EXIT

# --- tools -----------------------------------------------------------------------------------------------------------
command -v cargo >/dev/null || { echo "cargo is not on the PATH: install Rust first" >&2; exit 1; }
PATH="$PATH:/usr/sbin"
wanted=()
command -v nginx >/dev/null || wanted+=(nginx-light)
command -v redis-server >/dev/null || wanted+=(redis-server)
command -v java >/dev/null || wanted+=(default-jre-headless)
command -v mvn >/dev/null || wanted+=(maven)
command -v curl >/dev/null || wanted+=(curl)
command -v wget >/dev/null || wanted+=(wget)
command -v aria2c >/dev/null || wanted+=(aria2)
command -v python3 >/dev/null || wanted+=(python3-minimal)
python3 -m pip --version >/dev/null 2>&1 || wanted+=(python3-pip)
command -v chromium >/dev/null || wanted+=(chromium)
if [ ${#wanted[@]} -gt 0 ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "== installing ${wanted[*]}"
  # A policy of 101 keeps Debian from starting what it installs.
  policy=/usr/sbin/policy-rc.d
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made=$policy; }
  (apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${wanted[@]}") \
    >"$scratch/apt.log" 2>&1 || { tail -5 "$scratch/apt.log"; echo "${wanted[*]} could not be installed"; }
  [ -z "${made:-}" ] || rm -f "$made"
fi
for program in nginx redis-server java mvn curl wget aria2c python3 chromium; do
  command -v $program >/dev/null || echo "$program was not found: the tests against it are skipped"
done
python3 -m pip --version >/dev/null 2>&1 || echo "pip was not found: the tests against it are skipped"

# --- checks ----------------------------------------------------------------------------------------------------------
step "format" cargo fmt --check
step "lints, all features" cargo clippy --all-features --all-targets -- -D warnings
tree=$(cargo tree -e normal --prefix none)
if grep -qE '^(rusqlite|tokio-rusqlite|libsqlite3-sys|fs4|reqwest|axum|hyper) ' <<<"$tree"; then
  echo "the default features pull in a driver or an adapter" >&2
  exit 1
fi

# --- tests -----------------------------------------------------------------------------------------------------------
export REQUIRE_NGINX=1
command -v nginx >/dev/null || unset REQUIRE_NGINX
build() { # not --all-targets, which builds tests of the examples instead of the examples
  cargo test --all-features --no-run && cargo test --all-features --no-run --bench "*"
}
step "build" build
export EXAMPLES_ARE_BUILT=1

# Three groups of tests run at once, because none of them keeps two cores busy: schedules and fuzzing use one thread, and
# storages on servers wait most of the time. Schedules and fuzzing, and the other checks beside them, run at a low priority,
# because some tests measure time.
others=()
for main in tests/*/main.rs; do
  name=$(basename "$(dirname "$main")")
  case $name in
    model | fuzz | every_storage) ;;
    *) others+=(--test "$name") ;;
  esac
done
beside "schedules; fuzzing for a minute" nice -n 10 env FUZZ_SECONDS=60 cargo test --all-features --test model --test fuzz
beside "every storage" cargo test --all-features --test every_storage
beside "unit and other tests" cargo test --all-features --lib "${others[@]}"
step "lints, default features" nice -n 10 cargo clippy --all-targets -- -D warnings
step "lints, no features" nice -n 10 cargo clippy --no-default-features --lib -- -D warnings
step "docs" nice -n 10 env RUSTDOCFLAGS="-D warnings" cargo doc --all-features --no-deps
step "doc tests" nice -n 10 cargo test --all-features --doc
finish
step "benches: each once, allocations counted" cargo test --all-features --bench "*"

# --- examples --------------------------------------------------------------------------------------------------------
# All features, because these examples are built already. tests/release.sh builds them with the fewest.
example() { cargo run -q --all-features --example "$@"; }
quickstart() { example quickstart -- --storage "$scratch/quickstart.sqlite" "$@"; }
step "quickstart, an empty storage" quickstart --fresh
step "quickstart, the same file again" quickstart
quickstart >"$scratch/again"
if grep -qE '  miss  ' "$scratch/again"; then
  echo "the quickstart's later run asked for what its file holds" >&2
  exit 1
fi
if quickstart "http://127.0.0.1:1/" >"$scratch/out" 2>"$scratch/err"; then
  echo "the quickstart did not fail on a refused connection" >&2
  exit 1
fi
[ "$(wc -l <"$scratch/err")" = 1 ] || { echo "the quickstart's error is not one line:"; cat "$scratch/err"; exit 1; }
for file in examples/*.rs; do
  step "example $(basename "$file" .rs)" example "$(basename "$file" .rs)"
done

# --- totals ----------------------------------------------------------------------------------------------------------
sum() { grep -E '^test result:' "$log" | grep -oE "[0-9]+ $1" | awk '{n += $1} END {print n + 0}'; }
printf '\n%s in %s s\n' "everything passed" "$((SECONDS - began))"
printf '%s passed, %s failed, %s skipped\n' "$(sum passed)" "$(sum failed)" "$(sum ignored)"
