//! Takes secrets out of what others say: a server that repeats a request in its answer would put them into a report.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use zeroize::Zeroizing;

use super::Secret;

/// What stands in a secret's place.
const REDACTED: &str = "[redacted]";

/// How much of a secret tells it from other words, in bytes. A text may have been cut in the middle of it.
const TELLING_BYTES: usize = 8;

/// The shortest form that is looked for, in bytes. A shorter one may be part of ordinary words; by Basic, with a user
/// and in base64, it is long enough.
const SHORTEST_BYTES: usize = TELLING_BYTES;

/// The secrets of one task, in the forms in which they were sent. Clones share them.
#[derive(Clone, Default)]
pub struct Redaction(Arc<Mutex<Vec<Zeroizing<String>>>>);

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redaction")
    }
}

impl Redaction {
    /// Takes note of a secret, which is sent as it is, in base64, percent-encoded, or with a user by Basic.
    pub fn learn(&self, secret: &Secret, users: &[&str]) {
        let text = secret.expose();
        let mut forms = vec![
            Zeroizing::new(text.to_owned()),
            Zeroizing::new(unpadded(text)),
            Zeroizing::new(utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()),
        ];
        forms.extend(users.iter().map(|user| {
            let pair = Zeroizing::new(format!("{user}:{text}"));
            Zeroizing::new(unpadded(&pair))
        }));
        forms.retain(|form| form.len() >= SHORTEST_BYTES);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(forms);
        // One form may be the end of another.
        known.sort_by_key(|form| std::cmp::Reverse(form.len()));
    }

    /// The text without any of the secrets, also where it was cut in the middle of one.
    pub fn clean(&self, text: &mut String) {
        for form in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let telling = form.char_indices().map(|(at, _)| at).find(|&at| at >= TELLING_BYTES);
            let telling = &form[..telling.unwrap_or(form.len())];
            let mut from = 0;
            while let Some(at) = text[from..].find(telling).map(|at| at + from) {
                let same = text[at..].chars().zip(form.chars()).take_while(|(a, b)| a == b);
                let length: usize = same.map(|(c, _)| c.len_utf8()).sum();
                text.replace_range(at..at + length, REDACTED);
                from = at + REDACTED.len();
            }
        }
    }

    /// The same for every text in a value; names of keys are the daemon's own.
    pub fn clean_value(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.clean(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.clean_value(value)),
            Value::Object(values) => values.values_mut().for_each(|value| self.clean_value(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// Base64 without its padding, which a text that goes on has not.
fn unpadded(text: &str) -> String {
    let mut encoded = STANDARD.encode(text);
    encoded.truncate(encoded.trim_end_matches('=').len());
    encoded
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> String {
        let redaction = Redaction::default();
        redaction.learn(&Secret::new("glpat-S3cret/Token".into()), &["", "git"]);
        let mut text = text.to_owned();
        redaction.clean(&mut text);
        text
    }

    #[test]
    fn every_form_is_taken_out_whole_or_cut() {
        assert_eq!(cleaned("token glpat-S3cret/Token!"), "token [redacted]!");
        assert_eq!(cleaned("twice glpat-S3cret/Token glpat-S3cr…"), "twice [redacted] [redacted]…");
        assert_eq!(cleaned("%67 glpat%2DS3cret%2FToken"), "%67 [redacted]");
        let basic = STANDARD.encode("git:glpat-S3cret/Token");
        assert_eq!(cleaned(&format!("authorization: Basic {basic}")), "authorization: Basic [redacted]==");
        assert_eq!(cleaned("nothing to hide: glpat"), "nothing to hide: glpat");
    }

    #[test]
    fn all_texts_of_a_value_are_cleaned() {
        let redaction = Redaction::default();
        redaction.learn(&Secret::new("hunter2!".into()), &[]);
        let mut value = serde_json::json!({"a": ["x hunter2!", 1], "b": {"c": "hunter2!"}});
        redaction.clean_value(&mut value);
        assert_eq!(value, serde_json::json!({"a": ["x [redacted]", 1], "b": {"c": "[redacted]"}}));
    }
}
