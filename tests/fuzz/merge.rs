//! The merge against chains of arbitrary members.
#![no_main]

#[path = "targets/merge.rs"]
mod merge;
#[path = "targets/shown.rs"]
mod shown;

libfuzzer_sys::fuzz_target!(|data: &[u8]| merge::check(data));
