#!/usr/bin/env bash
# Passes all tests: format, lints, docs, unit, contract, integration and doc tests, the examples, the benches (each once).
# Installs what is missing where it may (nginx, Redis, Java and Maven, from Debian); otherwise says so and goes on without
# those tests.
# Servers are started by the tests themselves, on free ports and with temporary data, and end with them.
# Usage: tests/run.sh
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
scratch=$(mktemp -d)
export RUST_BACKTRACE=0
# What is built from nothing needs no notes for the next build, and is built sooner without them.
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL:-0}
began=$SECONDS

# Runs a command, and says how long it took.
step() {
  local name=$1 from=$SECONDS
  printf '\n== %s\n' "$name"
  shift
  "$@" 2>&1 | tee -a "$log"
  printf -- '-- %s: %s s\n' "$name" "$((SECONDS - from))"
}

# Runs a command beside the steps that follow, and shows its output when `finish` has waited for it. Comes back when cargo
# has begun to run the tests: until then it holds the lock of the target directory, for which the next step would wait.
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
if [ ${#wanted[@]} -gt 0 ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "== installing ${wanted[*]}"
  # A policy of 101 keeps Debian from starting what it installs.
  policy=/usr/sbin/policy-rc.d
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made=$policy; }
  (apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${wanted[@]}") \
    >"$scratch/apt.log" 2>&1 || { tail -5 "$scratch/apt.log"; echo "${wanted[*]} could not be installed"; }
  [ -z "${made:-}" ] || rm -f "$made"
fi
for program in nginx redis-server java mvn; do
  command -v $program >/dev/null || echo "$program was not found: the tests against it are skipped"
done

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
step "build" cargo test --all-features --tests --benches --examples --no-run
export EXAMPLES_ARE_BUILT=1

# Three groups of tests run at once: schedules and fuzzing have a thread each, and storages on servers wait most of the
# time. What is left of the cores builds what the other checks need, at the lowest priority, since tests measure time.
others=()
for main in tests/*/main.rs; do
  name=$(basename "$(dirname "$main")")
  case $name in
    model | fuzz | every_storage) ;;
    *) others+=(--test "$name") ;;
  esac
done
beside "schedules; fuzzing for a minute" env FUZZ_SECONDS=60 cargo test --all-features --test model --test fuzz
beside "every storage" cargo test --all-features --test every_storage
beside "unit and other tests" cargo test --all-features --lib "${others[@]}"
step "lints, default features" nice -n 19 cargo clippy --all-targets -- -D warnings
step "lints, no features" nice -n 19 cargo clippy --no-default-features --lib -- -D warnings
step "docs" nice -n 19 env RUSTDOCFLAGS="-D warnings" cargo doc --all-features --no-deps
step "unit tests, default features" nice -n 19 cargo test --lib
step "doc tests" nice -n 19 cargo test --all-features --doc
finish
step "benches: each once, allocations counted" cargo test --all-features --benches

# --- examples --------------------------------------------------------------------------------------------------------
# With all features, as they are built already; tests/release.sh builds them with the fewest.
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
