//! Files of known hosts: whatever is in one, reading it ends, and a key that it does not hold is not vouched for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sortie::host_key::{HostKeys, Verdict, describe};

fuzz_target!(|input: (&str, &[u8])| {
    let (text, key) = input;
    let known = HostKeys::parse(text);
    for (host, port) in [("git.example", 22), ("git.example", 2222), ("::1", 22)] {
        let offered = describe(host, port, key);
        assert!(offered.fingerprint.starts_with("SHA256:"));
        known.key_types(host, port);
        if let Verdict::Known(line) = known.check(host, port, key) {
            assert!(line >= 1 && line <= text.lines().count());
            assert!(!key.is_empty(), "nothing is no key");
        }
    }
});
