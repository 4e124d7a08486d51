//! The table of promises names tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The fewest rows that the table has.
const LEAST: usize = 20;

#[test]
fn every_promise_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let rows: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise")).collect();
    assert!(rows.len() >= LEAST, "only {} promises", rows.len());
    let mut tests = BTreeSet::new();
    for row in rows {
        let named: Vec<&str> = row.split('`').filter(|text| text.contains(".rs::")).collect();
        assert!(!named.is_empty(), "no test is named in {row}");
        tests.extend(named);
    }
    for test in tests {
        let (file, name) = test.split_once("::").unwrap();
        let text = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let is_test = text.lines().collect::<Vec<_>>().windows(4).any(|lines| {
            lines[0].trim_start().starts_with("#[t")
                && lines.iter().any(|line| line.contains(&format!("fn {name}(")))
        });
        assert!(is_test, "{file} has no test {name}");
    }
}
