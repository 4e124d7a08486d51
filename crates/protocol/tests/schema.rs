//! The published schema is the one that the types give.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

/// What renews the file.
const REGENERATE: &str = "SORTIE_WRITE_SCHEMA=1 cargo test -p sortie-protocol --test schema";

#[test]
fn the_schema_that_is_checked_in_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/sortie.v1.json");
    let mut generated = serde_json::to_string_pretty(&sortie_protocol::schema::document()).unwrap();
    generated.push('\n');
    if std::env::var_os("SORTIE_WRITE_SCHEMA").is_some() {
        std::fs::write(&path, &generated).expect("the schema can be written");
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == generated, "{} is stale; run: {REGENERATE}", path.display());
}

#[test]
fn the_schema_is_one_of_its_own_draft() {
    let document = sortie_protocol::schema::document();
    assert!(jsonschema::meta::is_valid(&document));
}
