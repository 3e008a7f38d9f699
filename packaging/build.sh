#!/usr/bin/env bash
# Makes the packages: .deb, .rpm and a tarball with a static program, in target/packages ($CARGO_TARGET_DIR/packages).
#
# It needs cargo-deb and cargo-generate-rpm (`cargo install --locked cargo-deb cargo-generate-rpm`), and for the tarball
# musl-gcc (Debian: musl-tools) and `rustup target add x86_64-unknown-linux-musl`. The .deb and the .rpm want the C
# library of the machine they are made on, or a later one.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
# The same sources make the same packages. Not told to the compilers: they'd build the C libraries anew each time.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}
umask 022

musl=x86_64-unknown-linux-musl
missing=()
need() { command -v "$1" >/dev/null || missing+=("$1"); }
need cargo-deb
need cargo-generate-rpm
need musl-gcc
if ((${#missing[@]})); then
    echo "missing: ${missing[*]}; the head of $0 says where they come from" >&2
    exit 1
fi

packages=$CARGO_TARGET_DIR/packages
# What the packages hold besides the program; Cargo.toml names the place as target/release/packaging.
made=$CARGO_TARGET_DIR/release/packaging
rm -rf "$made" "$packages"
mkdir -p "$made/man" "$made/completions" "$packages"

# RHEL 9 and Ubuntu 22.04 have an older C library than what packed relocations need.
export SILKTAIL_OLDER_GLIBC=1
cargo build --release --locked
silktail=$CARGO_TARGET_DIR/release/silktail

# `silktail man` prints all pages one after the other; each names itself in its .TH line.
mkdir "$made"/man/man{1,5}
"$silktail" man | awk -v to="$made/man/man1" '
    /^\.ie \\n\(\.g/ { page = ""; head = "" }
    $1 == ".TH" { page = to "/" $2 ".1"; printf "%s", head > page }
    page == "" { head = head $0 "\n"; next }
    { print > page }'
"$silktail" man config >"$made/man/man5/silktail.toml.5"
for page in "$made"/man/*/*; do
    packed=$made/man.gz/${page#"$made/man/"}
    mkdir -p "${packed%/*}"
    gzip -9n <"$page" >"$packed.gz"
done
"$silktail" completions bash >"$made/completions/silktail.bash"
"$silktail" completions zsh >"$made/completions/_silktail"
"$silktail" completions fish >"$made/completions/silktail.fish"

# The libraries in the program ask for their notices to come along; the same text is given once.
third_party() {
    local list text sum crate escaped from
    list=$(mktemp -d)
    cargo metadata --locked --format-version 1 --filter-platform "$musl" >"$list/metadata"
    cargo tree --locked -e normal --target "$musl" --prefix none --format '{p}' | cut -d' ' -f1,2 | sort -u |
        while read -r name version; do
            [[ $name != silktail ]] || continue
            crate=$name-${version#v}
            escaped=${crate//./\\.}
            escaped=${escaped//+/\\+}
            from=$(grep -oE "\"manifest_path\":\"[^\"]*/$escaped/Cargo\.toml\"" "$list/metadata" | cut -d'"' -f4)
            for text in "${from%/*}"/{LICENSE,LICENCE,COPYING,NOTICE,UNLICENSE}*; do
                [[ -f $text ]] || continue
                sum=$(sha256sum <"$text" | cut -d' ' -f1)
                cp "$text" "$list/$sum.text"
                echo "  $crate" >>"$list/$sum.crates"
            done
        done
    cat data/bots/LICENSE-* >"$list/bots.text"
    echo "  the lists of bots" >"$list/bots.crates"
    echo "silktail holds the following, each under the terms below it."
    for text in "$list"/*.text; do
        printf '\n%s\n' "------------------------------------------------------------------------"
        cat "${text%.text}.crates"
        echo
        cat "$text"
    done
    rm -r "$list"
}
third_party >"$made/THIRD-PARTY.txt"

SOURCE_DATE_EPOCH=$epoch cargo deb --no-build --locked --output "$packages/"
# Not by the machine's own find-requires, so that it doesn't matter whether rpm is installed here.
SOURCE_DATE_EPOCH=$epoch cargo generate-rpm --auto-req builtin --target-dir "$CARGO_TARGET_DIR" --output "$packages/"

cargo build --release --locked --target "$musl"
version=$(sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)
name=silktail-$version-x86_64-linux-musl
tree=$CARGO_TARGET_DIR/$musl/release/packaging/$name
rm -rf "$tree"
mkdir -p "$tree"
cp "$CARGO_TARGET_DIR/$musl/release/silktail" "$made/THIRD-PARTY.txt" "$tree/"
cp README.md CHANGELOG.md LICENSE-* config.example.toml "$tree/"
cp -r "$made/man" "$made/completions" systemd docs "$tree/"
cp packaging/silktail.sysusers "$tree/systemd/"
tar --create --gzip --file "$packages/$name.tar.gz" --directory "${tree%/*}" \
    --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" "$name"

ls -l "$packages"
