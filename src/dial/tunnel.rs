//! A tunnel through an HTTP proxy, by CONNECT (RFC 9110, section 9.3.6).

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::error::DialError;
use super::proxy::endpoint;
use super::{CONNECT_TIMEOUT, USER_AGENT};
use crate::config::HttpProxy;
use crate::credential::basic;

/// The longest head of an answer to CONNECT, in bytes.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// Asks the proxy at the other end of `tcp` for a tunnel to `target`, which is `host:port`. The name goes
/// to the proxy as it is. After this the socket is the target's, and not a byte of that has been read.
pub(super) async fn open(tcp: &mut TcpStream, target: &str, proxy: &HttpProxy) -> Result<(), DialError> {
    let shown = endpoint(&proxy.host, proxy.port);
    let timed_out = |_| DialError::TimedOut { endpoint: target.to_owned(), after: CONNECT_TIMEOUT };
    let head = timeout(CONNECT_TIMEOUT, ask(tcp, target, proxy)).await.map_err(timed_out)?;
    let answer = head.as_deref().and_then(parse);
    match answer {
        None => Err(DialError::ProxyNotHttp { proxy: shown }),
        Some(Answer { status: 200..300, .. }) => Ok(()),
        Some(Answer { status: 407, schemes }) => Err(DialError::ProxyAuthRequired {
            proxy: shown,
            schemes,
            credentials_sent: proxy.authorization.is_some(),
        }),
        Some(Answer { status, .. }) => Err(DialError::ProxyRefused { proxy: shown, status }),
    }
}

/// Sends CONNECT and reads the head of the answer to it; nothing where it breaks off or has no end.
async fn ask(tcp: &mut TcpStream, target: &str, proxy: &HttpProxy) -> Option<Vec<u8>> {
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
    tcp.write_all(request.as_bytes()).await.ok()?;
    let mut head = read_head(tcp).await?;
    // An interim answer announces another one.
    while parse(&head).is_some_and(|answer| answer.status < 200) {
        head = read_head(tcp).await?;
    }
    Some(head)
}

/// Reads up to the empty line and not one byte further: what follows is the tunnel's.
async fn read_head(tcp: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::with_capacity(256);
    while head.len() < MAX_ANSWER_BYTES {
        head.push(tcp.read_u8().await.ok()?);
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
    let challenges = lines.filter_map(|line| line.split_once(':'));
    let challenges = challenges.filter(|(name, _)| name.eq_ignore_ascii_case("proxy-authenticate"));
    let mut schemes: Vec<String> = challenges.flat_map(|(_, value)| offered_schemes(value)).collect();
    schemes.sort();
    schemes.dedup();
    Some(Answer { status, schemes })
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
            proxy-authenticate: Basic realm=\"a, Digest b\", NTLM\r\nContent-Length: 0\r\n\r\n";
        let schemes = ["basic", "negotiate", "ntlm"].map(str::to_owned).to_vec();
        assert_eq!(parse(head), Some(Answer { status: 407, schemes }));
        assert_eq!(parse(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), None);
        assert_eq!(parse(b"HTTP/1.1 20 OK\r\n\r\n"), None);
    }
}
