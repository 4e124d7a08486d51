//! Reading the sources: files in their order, then the environment, each judged on its own so that a
//! message can name the one that is wrong.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use config::{Config as Sources, ConfigError as SourceError, Environment, File, FileFormat};

use super::ConfigError;
use super::raw::{KEYS, LATER_KEYS, Raw};
use super::validate::SECRET_FORM;

/// The largest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The prefix of variables that override keys, and what stands between the parts of a key.
const PREFIX: &str = "SORTIE";
const SEPARATOR: &str = "__";

/// Keys whose value is a table that says where a secret comes from.
const SECRET_TABLES: [&str; 4] = [".secret", ".passphrase", ".enrollment_token", ".proxy_auth"];

/// Reads the files, later ones over earlier ones, and the variables over all of them.
pub(super) fn load(files: &[PathBuf], variables: &HashMap<String, String>) -> Result<Raw, ConfigError> {
    let mut merged = Sources::builder();
    let mut declared = Declared::default();
    for path in files {
        let text = read(path)?;
        let source = File::from_str(&text, FileFormat::Toml);
        let raw = judge(Sources::builder().add_source(source.clone()), &path.display().to_string())?;
        declared.servers.extend(raw.servers.into_keys());
        declared.credentials.extend(raw.credentials.into_keys());
        merged = merged.add_source(source);
    }
    check_variables(variables, &declared)?;
    let environment = environment(variables);
    judge(Sources::builder().add_source(environment.clone()), "the environment")?;
    judge(merged.add_source(environment), "the configuration")
}

/// Names that files declare; the environment may change these and add none.
#[derive(Default)]
struct Declared {
    servers: BTreeSet<String>,
    credentials: BTreeSet<String>,
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |problem: String| ConfigError::Unreadable { file: path.to_owned(), problem };
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.kind().to_string()))?.len();
    if size > MAX_FILE_BYTES {
        return Err(unreadable(format!("it has {size} bytes, more than the limit of {MAX_FILE_BYTES}")));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.kind().to_string()))
}

fn environment(variables: &HashMap<String, String>) -> Environment {
    let prefix = format!("{PREFIX}{SEPARATOR}");
    let own = variables.iter().filter(|(name, _)| name.starts_with(&prefix));
    let own = own.map(|(name, value)| (name.clone(), value.clone())).collect();
    Environment::with_prefix(PREFIX)
        .prefix_separator(SEPARATOR)
        .separator(SEPARATOR)
        .try_parsing(true)
        .list_separator(",")
        .with_list_parse_key("agent.tags")
        .source(Some(own))
}

fn check_variables(variables: &HashMap<String, String>, declared: &Declared) -> Result<(), ConfigError> {
    for name in variables.keys() {
        let lower = name.to_ascii_lowercase();
        let mut parts = lower.split(SEPARATOR);
        if !name.starts_with(PREFIX) || parts.next() != Some("sortie") {
            continue;
        }
        let (table, key) = (parts.next(), parts.next().unwrap_or_default());
        let names = match table {
            Some("servers") => &declared.servers,
            Some("credentials") => &declared.credentials,
            _ => continue,
        };
        if !names.contains(key) {
            return Err(ConfigError::EnvironmentAdds {
                variable: name.clone(),
                table: table.unwrap_or_default().to_owned(),
                nearest: nearest(key, names.iter().map(String::as_str)),
            });
        }
    }
    Ok(())
}

/// Deserializes one source, or all of them merged, and refuses keys that no table has.
fn judge(
    builder: config::ConfigBuilder<config::builder::DefaultState>,
    origin: &str,
) -> Result<Raw, ConfigError> {
    let origin = origin.to_owned();
    let sources = builder.build().map_err(|error| syntax(&origin, &error))?;
    let mut unknown = Vec::new();
    let raw = serde_ignored::deserialize(sources, |path| unknown.push(path.to_string()))
        .map_err(|error| wrong_type(&origin, error))?;
    // Serde marks the way through an optional value with a question mark, which no key holds.
    match unknown.first().map(|key| key.replace("?.", "").replace('?', "")) {
        Some(key) => Err(unknown_key(origin, key)),
        None => Ok(raw),
    }
}

fn syntax(origin: &str, error: &SourceError) -> ConfigError {
    let problem = match error {
        SourceError::FileParse { cause, .. } => cause.to_string(),
        other => other.to_string(),
    };
    ConfigError::Syntax { origin: origin.to_owned(), problem: problem.trim().to_owned() }
}

fn wrong_type(origin: &str, error: SourceError) -> ConfigError {
    let origin = origin.to_owned();
    match error {
        // What stands there instead is not repeated: it could be a secret in the wrong place.
        SourceError::Type { expected, key, .. } => {
            ConfigError::Value { origin, key: key.unwrap_or_default(), expected: expected.to_owned() }
        }
        SourceError::At { error, key, .. } => match wrong_type(&origin, *error) {
            ConfigError::Value { key: inner, expected, .. } if !inner.is_empty() => {
                ConfigError::Value { origin, key: inner, expected }
            }
            ConfigError::Value { expected, .. } => {
                let key = key.unwrap_or_default();
                let is_secret = SECRET_TABLES.iter().any(|table| key.ends_with(table));
                let expected = if is_secret { SECRET_FORM.to_owned() } else { expected };
                ConfigError::Value { origin, key, expected }
            }
            other => other,
        },
        // Serde's own message repeats the value.
        SourceError::Message(_) => {
            ConfigError::Value { origin, key: String::new(), expected: "a value of another type".to_owned() }
        }
        other => ConfigError::Syntax { origin, problem: other.to_string() },
    }
}

fn unknown_key(origin: String, key: String) -> ConfigError {
    let (table, name) = key.rsplit_once('.').unwrap_or(("", &key));
    let keys_of = |list: &'static [(&str, &[&str])]| {
        list.iter().find(|(pattern, _)| matches(pattern, table)).map_or(&[][..], |(_, keys)| keys)
    };
    if keys_of(LATER_KEYS).contains(&name) {
        return ConfigError::NotSupportedYet { origin, key };
    }
    let nearest = nearest(name, keys_of(KEYS).iter().copied());
    ConfigError::UnknownKey { origin, key, nearest }
}

fn matches(pattern: &str, table: &str) -> bool {
    let (pattern, table): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), table.split('.').collect());
    pattern.len() == table.len() && pattern.iter().zip(&table).all(|(p, t)| *p == "*" || p == t)
}

/// The right key that was most likely meant.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let scored = candidates.map(|candidate| (strsim::jaro_winkler(name, candidate), candidate));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    const WORTH_NAMING: f64 = 0.6;
    (best.0 >= WORTH_NAMING).then(|| best.1.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Every key of the list is accepted by the tables, and every table has all of its keys in the list.
    #[test]
    fn the_list_of_keys_is_that_of_the_tables() {
        for (table, keys) in KEYS {
            let path = table.replace('*', "x");
            for key in *keys {
                let full = if path.is_empty() { (*key).to_owned() } else { format!("{path}.{key}") };
                // A value of a wrong type is an error of its own, which shows that the key is known.
                let judged = judge(Sources::builder().set_override(&full, "text").unwrap(), "test");
                assert!(!matches!(judged, Err(ConfigError::UnknownKey { .. })), "{full}");
            }
            let full = if path.is_empty() { "zzz".to_owned() } else { format!("{path}.zzz") };
            let judged = judge(Sources::builder().set_override(&full, "text").unwrap(), "test");
            assert!(matches!(judged, Err(ConfigError::UnknownKey { .. })), "{full}: {judged:?}");
        }
        for (table, keys) in LATER_KEYS {
            for key in *keys {
                let full = format!("{}.{key}", table.replace('*', "x"));
                let judged = judge(Sources::builder().set_override(&full, "text").unwrap(), "test");
                assert!(matches!(judged, Err(ConfigError::NotSupportedYet { .. })), "{full}: {judged:?}");
            }
        }
    }
}
