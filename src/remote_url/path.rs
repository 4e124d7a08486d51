//! The path of a URL: its one spelling, and what people copy along with it from a browser.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{Scheme, UrlError};

/// What is escaped in a segment of a path, everywhere alike, so that one path has one spelling. An `@` and a
/// `;` may stand bare by the standard, and are escaped because some readers see the end of user info or the
/// beginning of parameters in them.
pub const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b':')
    .remove(b'=');

/// Parameters by which the pages of Azure DevOps and GitLab say what they show. A URL that was copied from a
/// browser may carry them, and they are dropped; any other query is refused, because it could hold a token.
const PAGE_PARAMETERS: [&str; 18] = [
    "_a",
    "anchor",
    "fullScreen",
    "itemVersion",
    "lineEnd",
    "lineEndColumn",
    "lineStart",
    "lineStartColumn",
    "lineStyle",
    "path",
    "plain",
    "ref",
    "ref_type",
    "refName",
    "sourceRef",
    "tab",
    "targetRef",
    "version",
];

/// The path in front of a query that only says what a page shows; SSH has no pages.
pub(super) fn without_page_query(scheme: Scheme, path: &str) -> Result<&str, UrlError> {
    let Some((path, query)) = path.split_once('?') else { return Ok(path) };
    let is_known = |pair: &str| PAGE_PARAMETERS.contains(&pair.split('=').next().unwrap_or_default());
    let is_of_a_page = scheme != Scheme::Ssh && !query.contains('#') && query.split('&').all(is_known);
    if is_of_a_page { Ok(path) } else { Err(UrlError::QueryOrFragment) }
}

/// What changes the text around it and cannot be seen: control characters, and those of reading direction.
pub(super) fn is_invisible(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A path in its one spelling: each segment decoded and escaped again, no empty ones.
///
/// # Errors
/// [`UrlError::Path`], [`UrlError::ControlCharacters`] and [`UrlError::OptionLike`].
pub fn parse_path(text: &str) -> Result<String, UrlError> {
    let bytes = text.as_bytes();
    let broken_escape = |at: usize| {
        let hex = |offset: usize| bytes.get(at + offset).is_some_and(u8::is_ascii_hexdigit);
        bytes[at] == b'%' && !(hex(1) && hex(2))
    };
    if text.contains('\\') || (0..bytes.len()).any(broken_escape) {
        return Err(UrlError::Path);
    }
    let mut path = String::new();
    for segment in text.split('/').filter(|segment| !segment.is_empty()) {
        let decoded = percent_decode_str(segment).decode_utf8().map_err(|_| UrlError::Path)?;
        if decoded == "." || decoded == ".." || decoded.contains(['/', '\\']) {
            return Err(UrlError::Path);
        }
        if decoded.chars().any(is_invisible) {
            return Err(UrlError::ControlCharacters);
        }
        if path.is_empty() && decoded.starts_with('-') {
            return Err(UrlError::OptionLike("path"));
        }
        path.push('/');
        path.extend(utf8_percent_encode(&decoded, SEGMENT));
    }
    Ok(path)
}
