//! URLs as tasks and operators write them: parse, read as places, print, parse again.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../invariants/url.rs"]
mod invariants;

fuzz_target!(|text: &str| invariants::check(text));
