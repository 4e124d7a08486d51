//! A tunnel through an HTTP proxy, by CONNECT (RFC 9110, section 9.3.6).

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::error::{DialError, ProxyReply};
use super::proxy::endpoint;
use super::{CONNECT_TIMEOUT, USER_AGENT};
use crate::config::ProxyServer;
use crate::credential::basic;
use crate::report::StageLog;

/// The longest head of an answer to CONNECT, in bytes.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// Headers of a proxy's answer that become facts: who answered, and what it met. `Proxy-Status` is RFC 9209's,
/// the other one is Squid's.
const TOLD_HEADERS: [(&str, &str); 4] = [
    ("via", "via"),
    ("server", "server"),
    ("proxy-status", "proxy_status"),
    ("x-squid-error", "squid_error"),
];

/// How many characters of a header become a fact.
const MAX_HEADER_CHARS: usize = 200;

/// Asks the proxy at the other end of `stream` for a tunnel to `target`, which is `host:port`, and records its
/// answer in the stage that runs. The name goes to the proxy as it is. After this the stream is the target's, and
/// not a byte of that has been read.
pub(super) async fn open(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: &str,
    proxy: &ProxyServer,
    log: &StageLog,
) -> Result<(), DialError> {
    let shown = endpoint(&proxy.host, proxy.port);
    let timed_out = |_| DialError::TimedOut { endpoint: target.to_owned(), after: CONNECT_TIMEOUT };
    let head = timeout(CONNECT_TIMEOUT, ask(stream, target, proxy)).await.map_err(timed_out)?;
    let Some(answer) = head.as_deref().and_then(parse) else {
        return Err(DialError::ProxyProtocol { proxy: shown, kind: proxy.kind });
    };
    answer.record(log);
    match answer.status {
        200..300 => Ok(()),
        // tinyproxy says 407 to nobody and 401 to somebody whom it does not know; a tunnel has no other login.
        407 => Err(refused_login(shown, proxy, answer)),
        401 if proxy.authorization.is_some() => Err(refused_login(shown, proxy, answer)),
        status => Err(DialError::ProxyRefused { proxy: shown, reply: ProxyReply::Status(status) }),
    }
}

fn refused_login(shown: String, proxy: &ProxyServer, answer: Answer) -> DialError {
    DialError::ProxyAuthRequired {
        proxy: shown,
        kind: proxy.kind,
        schemes: answer.schemes,
        credentials_sent: proxy.authorization.is_some(),
    }
}

/// Sends CONNECT and reads the head of the answer to it; nothing where it breaks off or has no end.
async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    target: &str,
    proxy: &ProxyServer,
) -> Option<Vec<u8>> {
    let mut request = Zeroizing::new(format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {USER_AGENT}\r\n"
    ));
    if let Some(authorization) = &proxy.authorization {
        let value = basic(&authorization.user, &authorization.password);
        // Room for all of it, so that no copy of the secret is left behind by growth.
        request.reserve(value.expose().len() + 64);
        request.push_str("Proxy-Authorization: ");
        request.push_str(value.expose());
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    stream.flush().await.ok()?;
    let mut head = read_head(stream).await?;
    // An interim answer announces another one.
    while parse(&head).is_some_and(|answer| answer.status < 200) {
        head = read_head(stream).await?;
    }
    Some(head)
}

/// Reads up to the empty line and not one byte further: what follows is the tunnel's.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let mut head = Vec::with_capacity(256);
    while head.len() < MAX_ANSWER_BYTES {
        head.push(stream.read_u8().await.ok()?);
        if head.ends_with(b"\r\n\r\n") || head.ends_with(b"\n\n") {
            return Some(head);
        }
    }
    None
}

/// What an answer to CONNECT says.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    schemes: Vec<String>,
    told: Vec<(&'static str, String)>,
}

impl Answer {
    fn record(&self, log: &StageLog) {
        log.fact("status", self.status);
        if !self.schemes.is_empty() {
            log.fact("schemes", self.schemes.clone());
        }
        for (name, value) in &self.told {
            log.fact(name, value.as_str());
        }
    }
}

fn parse(head: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ');
    if !first.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = first.next()?;
    let status = if status.len() == 3 { status.parse().ok()? } else { return None };
    let (mut schemes, mut told) = (Vec::new(), Vec::new());
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("proxy-authenticate") {
            schemes.extend(offered_schemes(value));
        } else if let Some((_, fact)) = TOLD_HEADERS.iter().find(|(told, _)| name.eq_ignore_ascii_case(told))
        {
            let shown = value.trim().chars().filter(|c| !c.is_control()).take(MAX_HEADER_CHARS);
            told.push((*fact, shown.collect()));
        }
    }
    schemes.sort();
    schemes.dedup();
    Some(Answer { status, schemes, told })
}

/// The schemes of a `Proxy-Authenticate` header, in lower case: each challenge begins with one, and its
/// parameters follow with commas between them.
pub(super) fn offered_schemes(value: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in value.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => parts.push(String::new()),
            c => parts.last_mut().into_iter().for_each(|part| part.push(if quoted { '_' } else { c })),
        }
    }
    let first_words = parts.iter().filter_map(|part| part.split_whitespace().next());
    let schemes = first_words.filter(|word| !word.contains('='));
    let is_token =
        |word: &&str| word.len() <= 32 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    schemes.filter(is_token).map(str::to_ascii_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_with_all_of_its_challenges() {
        let head = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Negotiate\r\n\
            proxy-authenticate: Basic realm=\"a, Digest b\", NTLM\r\nX-Squid-Error: ERR_X\x1b 0\r\n\r\n";
        let schemes = ["basic", "negotiate", "ntlm"].map(str::to_owned).to_vec();
        let told = vec![("squid_error", "ERR_X 0".to_owned())];
        assert_eq!(parse(head), Some(Answer { status: 407, schemes, told }));
        assert_eq!(parse(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), None);
        assert_eq!(parse(b"HTTP/1.1 20 OK\r\n\r\n"), None);
    }
}
