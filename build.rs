//! Asks the linker for packed relocations, where the C library that the program is built with can load them.
//!
//! A program that may lie anywhere in memory is adjusted to where it does when it starts. What says so takes 0.4 MB of it,
//! which stay in memory for nothing; packed they take a fiftieth. glibc reads them since 2.36 (its NEWS: `DT_RELR`). With
//! `SILKTAIL_OLDER_GLIBC` in the environment they aren't asked for, as where packages are made for other machines.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SILKTAIL_OLDER_GLIBC");
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    let is_gnu_linux = var("CARGO_CFG_TARGET_OS") == "linux" && var("CARGO_CFG_TARGET_ENV") == "gnu";
    // What is built for another machine may run with an older one.
    let is_for_here = var("HOST") == var("TARGET") && var("SILKTAIL_OLDER_GLIBC").is_empty();
    if is_gnu_linux && is_for_here && glibc().is_some_and(|version| version >= (2, 36)) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// This machine's glibc: `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    let (major, minor) = said.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}
