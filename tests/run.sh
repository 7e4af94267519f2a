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
trap 'rm -rf "$log" "$scratch"' EXIT
export RUST_BACKTRACE=0
began=$SECONDS

step() {
  printf '\n== %s\n' "$1"
  shift
  "$@" 2>&1 | tee -a "$log"
}

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
step "lints, no features" cargo clippy --no-default-features --lib -- -D warnings
step "lints, default features" cargo clippy --all-targets -- -D warnings
step "docs" env RUSTDOCFLAGS="-D warnings" cargo doc --all-features --no-deps
tree=$(cargo tree -e normal --prefix none)
if grep -qE '^(rusqlite|tokio-rusqlite|libsqlite3-sys|fs4|reqwest|axum|hyper) ' <<<"$tree"; then
  echo "the default features pull in a driver or an adapter" >&2
  exit 1
fi

# --- tests -----------------------------------------------------------------------------------------------------------
export REQUIRE_NGINX=1
command -v nginx >/dev/null || unset REQUIRE_NGINX
step "unit, contract and integration tests" cargo test --all-features --lib --tests --examples
step "fuzzing for a minute" env FUZZ_SECONDS=60 cargo test --all-features --test fuzz
step "doc tests" cargo test --all-features --doc
step "unit tests, default features" cargo test --lib
step "benches: each once, allocations counted" cargo test --all-features --benches

# --- examples --------------------------------------------------------------------------------------------------------
quickstart() { cargo run -q --example quickstart --features sqlite -- --storage "$scratch/quickstart.sqlite" "$@"; }
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
for example in examples/*.rs; do
  name=$(basename "$example" .rs)
  step "example $name" cargo run -q --all-features --example "$name"
done

# --- totals ----------------------------------------------------------------------------------------------------------
sum() { grep -E '^test result:' "$log" | grep -oE "[0-9]+ $1" | awk '{n += $1} END {print n + 0}'; }
printf '\n%s in %s s\n' "everything passed" "$((SECONDS - began))"
printf '%s passed, %s failed, %s skipped\n' "$(sum passed)" "$(sum failed)" "$(sum ignored)"
