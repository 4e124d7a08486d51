//! Answers of a server's API: status, headers, a blank line, a body. Whatever is in one, judging it ends, and
//! nothing of it that is shown could move a cursor.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use sortie::provider::rest::{Answer, MAX_TEXT_CHARS, MAX_TEXTS};
use sortie::provider::{ProviderError, azure_devops, gitlab};

fuzz_target!(|input: (u16, &[u8])| {
    let (status, bytes) = input;
    let end_of_head = bytes.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = bytes.split_at(end_of_head.map_or(0, |at| at + 2));
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    judge(&Answer::new("/x".to_owned(), status, headers, body.to_vec()));
});

fn judge(answer: &Answer) {
    azure_devops::shows_marks(answer);
    gitlab::shows_marks(answer);
    assert!(answer.schemes().len() <= MAX_TEXTS);
    answer.json();
    let shown = [
        answer.field("message"),
        answer.encoded_header("x-tfs-serviceerror"),
        answer.location(),
        answer.local_redirect("https://git.example"),
    ];
    for text in shown.into_iter().flatten() {
        assert!(!text.contains(char::is_control) && text.chars().count() <= 2 * MAX_TEXT_CHARS, "{text:?}");
    }
    match answer.general_error("JSON") {
        ProviderError::Unexpected { content_type, first, .. } => {
            let texts = [content_type.unwrap_or_default(), first];
            assert!(texts.iter().all(|text| !text.contains(char::is_control)), "{texts:?}");
        }
        error => drop(error.to_string()),
    }
}
