#!/usr/bin/env bash
# Checks a release, in addition to tests/run.sh: the package, the docs as docs.rs builds them, the features in their
# combinations, the oldest Rust and the oldest dependencies, licences and sources, and the changes of the API. It also
# compares the cache with its model for a million seeds (tests/model), runs the bench `peers` briefly, runs the recipes for other
# crates, and compiles each of them in a new package against the packaged crate.
#
# A maintainer runs it before a release, with everything committed. CI does not run it. It publishes nothing.
#
# It installs missing tools if it may: cargo-hack, cargo-deny, cargo-semver-checks and cargo-check-external-types into the
# target directory, and the oldest Rust by rustup. A step whose tool is missing is skipped and says so. A step that fails
# does not stop the others.
# Usage: tests/release.sh [BASELINE]
#   BASELINE  the tag or commit to compare the API with; default: the newest tag v*
set -euo pipefail
cd "$(dirname "$0")/.."

command -v cargo >/dev/null || { echo "cargo is not on the PATH: install Rust first" >&2; exit 1; }
baseline=${1:-}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
tools=$target/release-tools
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
PATH="$PATH:$tools/bin"
export CARGO_TARGET_DIR=$target CARGO_TERM_COLOR=never
# Debug information and incremental builds would take gigabytes, and nothing built here is debugged or edited.
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0
began=$SECONDS
passed=0 skipped=0 failed=()

# Runs a command or function as a step, and counts its result. 77 is the code of skip().
step() {
  local name=$1 start=$SECONDS status
  shift
  printf '\n== %s\n' "$name"
  set +e
  (set -e; "$@") 2>&1
  status=$?
  set -e
  case $status in
    0) passed=$((passed + 1)); printf 'passed' ;;
    77) skipped=$((skipped + 1)); printf 'skipped' ;;
    *) failed+=("$name"); printf 'failed' ;;
  esac
  printf ' in %s s: %s\n' "$((SECONDS - start))" "$name"
}

skip() {
  echo "skipped: $*"
  exit 77
}

fail() {
  echo "$*"
  exit 1
}

# Installs a subcommand of cargo if it is missing. Without CARGO_TARGET_DIR, cargo builds it in a temporary directory.
tool() {
  command -v "$1" >/dev/null && return
  echo "installing $1"
  env -u CARGO_TARGET_DIR cargo install --quiet --locked --root "$tools" "$1" || skip "$1 could not be installed"
}

nightly() {
  cargo +nightly --version >/dev/null 2>&1 || skip "there is no nightly Rust: rustup toolchain install nightly"
}

# --- the package -----------------------------------------------------------------------------------------------------
# The largest file that may be packaged, in KiB: far above any source file, below a recording or a binary by mistake.
largest=256

committed() {
  local changes
  changes=$(git status --porcelain)
  [ -z "$changes" ] || fail "commit or remove this first, so that what is checked is what is released:"$'\n'"$changes"
}

publish() {
  committed
  cargo publish --dry-run
}

# Packs the package, and checks its files.
package() {
  committed
  cargo package --no-verify --quiet
  local version archive root name size big=""
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | sed -n 1p)
  archive=$target/package/tower-response-cache-$version.crate
  tar -xzf "$archive" -C "$scratch"
  root=$scratch/tower-response-cache-$version

  # Everything in git except CI and the crates with dependencies of their own, so that the tests and pages that the docs
  # name are there too.
  git ls-files | grep -vE '^(\.ci|benches/peers|tests/recipes)/|^\.gitignore$' | sort >"$scratch/wanted"
  cargo package --list | grep -vxE '\.cargo_vcs_info\.json|Cargo\.toml\.orig' | sort >"$scratch/packaged"
  diff "$scratch/wanted" "$scratch/packaged" || fail "the package (>) differs from the files in git without .ci, benches/peers and tests/recipes (<)"
  for name in LICENSE-MIT LICENSE-APACHE README.md CHANGELOG.md Cargo.lock; do
    [ -s "$root/$name" ] || fail "the package has no $name"
  done
  while read -r name; do
    size=$(($(wc -c <"$root/$name") / 1024))
    [ "$size" -lt "$largest" ] || big+=" $name ($size KiB)"
  done <"$scratch/packaged"
  [ -z "$big" ] || fail "the package has files of $largest KiB or more:$big"
  grep -qF "## $version" "$root/CHANGELOG.md" || echo "note: CHANGELOG.md has no section for $version yet"
  printf '%s files, %s KiB, packed %s KiB\n' "$(wc -l <"$scratch/packaged")" \
    "$(du -s --apparent-size -k "$root" | cut -f1)" "$(($(wc -c <"$archive") / 1024))"
}

# --- the docs --------------------------------------------------------------------------------------------------------
docs_settings() {
  cargo metadata --no-deps --format-version 1 --quiet | grep -oE '"docs":\{"rs":\{[^}]*\}\}' | tee "$scratch/docs-rs"
  grep -q '"all-features":true' "$scratch/docs-rs" || fail "Cargo.toml does not tell docs.rs to build all features"
  grep -q '"rustdoc-args":\["--cfg","docsrs"\]' "$scratch/docs-rs" || fail "Cargo.toml does not tell docs.rs to set --cfg docsrs"
}

docs() {
  nightly
  local pages=$target/doc/tower_response_cache feature missing=""
  rm -rf "$pages"
  DOCS_RS=1 RUSTDOCFLAGS="--cfg docsrs -D warnings" cargo +nightly doc --lib --no-deps --all-features
  for feature in admin memory sqlite directory redis mongodb dynamodb reqwest regex content-keys sitemap testing; do
    grep -rqE "crate feature <code>$feature</code>" "$pages" || missing+=" $feature"
  done
  [ -z "$missing" ] || fail "no page shows that it needs the feature:$missing"
}

# --- features, Rust and dependencies ---------------------------------------------------------------------------------
# Pairs are enough: hardly any code depends on three features at once. --keep-going names every combination that fails.
features() {
  tool cargo-hack
  export RUSTFLAGS="-D warnings"
  cargo hack check --lib --feature-powerset --depth 2 --exclude-features default --keep-going
}

# Cargo.toml names the features that each test, example and bench needs: all of them compile with any single feature.
features_of_tests() {
  tool cargo-hack
  export RUSTFLAGS="-D warnings"
  cargo hack check --each-feature --features memory --exclude-features default --all-targets --keep-going
}

# tests/run.sh runs them with all features only.
unit_tests() {
  cargo test --quiet --lib
}

# All features, and all but one. The features that enable that one are left out too.
features_most() {
  export RUSTFLAGS="-D warnings"
  local all left kept wrong=""
  all=$(sed -n '/^\[features\]/,/^\[dependencies\]/p' Cargo.toml | grep -E '^[a-z-]+ = ' | grep -v '^default = ')
  cargo check --quiet --lib --all-features || wrong+=" none"
  while read -r left _; do
    echo "without $left"
    kept=$(grep -vE "^$left = |\"$left\"" <<<"$all" | sed 's/ = .*//' | paste -sd,)
    cargo check --quiet --lib --no-default-features --features "$kept" || wrong+=" $left"
  done <<<"$all"
  [ -z "$wrong" ] || fail "does not compile, or warns, without:$wrong"
}

oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

oldest_rust() {
  if ! cargo "+$oldest" --version >/dev/null 2>&1; then
    command -v rustup >/dev/null || skip "Rust $oldest is not installed, and there is no rustup to install it"
    timeout 300 rustup toolchain install "$oldest" --profile minimal --no-self-update >"$scratch/rustup.log" 2>&1 ||
      skip "Rust $oldest cannot be installed: rustup toolchain install $oldest --profile minimal"
  fi
  cargo "+$oldest" check --all-features
}

# Compares with what the dependencies declare, for machines that cannot install that Rust.
oldest_rust_of_dependencies() {
  local newest
  newest=$(cargo metadata --all-features --format-version 1 --quiet | grep -oE '"rust_version":"[0-9.]+"' |
    grep -oE '[0-9.]+' | sed 's/\.0$//' | sort -Vu | tail -n 1)
  echo "the dependencies need Rust $newest, and Cargo.toml promises $oldest"
  [ "$(printf '%s\n' "$newest" "$oldest" | sort -V | tail -n 1)" = "$oldest" ]
}

# Checks the lower bounds in Cargo.toml: the library compiles with the oldest version of each direct dependency.
oldest_dependencies() {
  nightly
  local copy=$scratch/oldest
  mkdir "$copy"
  git ls-files -z | tar --null --files-from - -c | tar -x -C "$copy"
  cd "$copy"
  cargo +nightly update --quiet -Z direct-minimal-versions
  cargo check --lib --all-features
}

licences() {
  tool cargo-deny
  cargo deny --config tests/release/deny.toml check --hide-inclusion-graph bans licenses sources
}

# --- the API ---------------------------------------------------------------------------------------------------------
api() {
  [ -n "$baseline" ] ||
    baseline=$(git for-each-ref --count=1 --sort=-v:refname --format='%(refname:short)' 'refs/tags/v*')
  [ -n "$baseline" ] || skip "there is no tag v* yet: name a commit to compare with, as in tests/release.sh HEAD~10"
  git rev-parse --quiet --verify "$baseline^{commit}" >/dev/null || fail "there is no commit $baseline"
  tool cargo-semver-checks
  echo "compared with $baseline"
  cargo semver-checks --all-features --baseline-rev "$baseline"
}

# Other crates' types in the API are those that tests/release/external-types.toml lists.
external_types() {
  nightly
  tool cargo-check-external-types
  cargo +nightly check-external-types --all-features --config tests/release/external-types.toml
}

# --- the model -------------------------------------------------------------------------------------------------------
# The seeds of one process run one after the other, because they share locks: so each core gets a process of its own.
model() {
  local cores all=1000000 each number runs=() wrong=""
  cores=$(nproc)
  each=$(((all + cores - 1) / cores))
  cargo test --quiet --release --test model --no-run
  for ((number = 0; number < cores; number++)); do
    MODEL_FIRST=$((number * each)) MODEL_SEEDS=$each \
      cargo test --quiet --release --test model cache_does_what_the_model_allows >"$scratch/model.$number" 2>&1 &
    runs+=($!)
  done
  for number in "${!runs[@]}"; do
    wait "${runs[number]}" || { wrong+=" $number"; cat "$scratch/model.$number"; }
  done
  [ -z "$wrong" ] || fail "the cache did what the model does not allow"
}

# --- the bench with crates of its own --------------------------------------------------------------------------------
# tests/run.sh does not build it.
peers() {
  cargo bench --quiet --bench peers -- --quick
  cargo bench --quiet --bench peers -- load --quick
  cargo bench --quiet --bench peers -- growth --quick
  RUSTFLAGS="-D warnings" cargo clippy --quiet --locked --all-targets --manifest-path benches/peers/Cargo.toml
}

# --- recipes for other crates ----------------------------------------------------------------------------------------
# tests/run.sh does not build them.
recipes() {
  cargo fmt --check --manifest-path tests/recipes/Cargo.toml
  RUSTFLAGS="-D warnings" cargo clippy --quiet --locked --all-targets --manifest-path tests/recipes/Cargo.toml
  cargo test --quiet --locked --manifest-path tests/recipes/Cargo.toml
}

# Compiles each example and recipe that lists its dependencies in a new package, with these dependencies and the packaged
# crate, as a person does who copies the file.
copies() {
  committed
  cargo package --no-verify --quiet
  local version file name folder dependencies count=0 wrong=""
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | sed -n 1p)
  tar -xzf "$target/package/tower-response-cache-$version.crate" -C "$scratch"
  for file in "$scratch/tower-response-cache-$version"/examples/{,recipes/}*.rs; do
    dependencies=$(sed -n '\|^//! ```toml$|,\|^//! ```$|{ s,^//! ,,; /^```/d; p; }' "$file")
    [ -n "$dependencies" ] || continue
    name=$(basename "$file" .rs)
    folder=$scratch/copies/$name
    mkdir -p "$folder/src"
    if grep -q '^async fn main' "$file"; then cp "$file" "$folder/src/main.rs"; else cp "$file" "$folder/src/lib.rs"; fi
    cat >"$folder/Cargo.toml" <<TOML
[package]
name = "copy-of-${name//_/-}"
edition = "2024"

$dependencies

[patch.crates-io]
tower-response-cache = { path = "$scratch/tower-response-cache-$version" }
TOML
    RUSTFLAGS="-D warnings" CARGO_TARGET_DIR=$target/copies cargo check --quiet --manifest-path "$folder/Cargo.toml" || wrong+=" $name"
    count=$((count + 1))
  done
  echo "$count files"
  [ "$count" -ge 12 ] || fail "files that list their dependencies are missing"
  [ -z "$wrong" ] || fail "these do not compile with the dependencies that they list:$wrong"
}

# --- steps -----------------------------------------------------------------------------------------------------------
step "publishing, dry run" publish
step "what is packaged" package
step "settings for docs.rs" docs_settings
step "docs as docs.rs builds them" docs
step "licences, duplicates and sources" licences
step "features: none, each and in pairs" features
step "features: all, and all but one" features_most
step "features: the tests, with each" features_of_tests
step "features: unit tests, with the default ones" unit_tests
step "Rust $oldest" oldest_rust
step "Rust $oldest, by what the dependencies say" oldest_rust_of_dependencies
step "oldest dependencies" oldest_dependencies
step "changes of the API" api
step "types of other crates in the API" external_types
step "the bench of peers, briefly" peers
step "recipes for other crates" recipes
step "examples and recipes, each copied to a new package" copies
step "the model, a million seeds" model

# --- totals ----------------------------------------------------------------------------------------------------------
printf '\nin %s s\n' "$((SECONDS - began))"
for name in "${failed[@]}"; do echo "failed: $name"; done
printf '%s passed, %s failed, %s skipped\n' "$passed" "${#failed[@]}" "$skipped"
[ ${#failed[@]} = 0 ]
