#![no_main]
#[allow(dead_code, reason = "each target uses its own")]
#[path = "../shared.rs"]
mod shared;

libfuzzer_sys::fuzz_target!(|data: &[u8]| shared::config(data, &std::env::temp_dir()));
