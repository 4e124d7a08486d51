//! A server that gives back what another one answered, and spoils it on the way: a real socket with broken HTTP.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The longest request that is read, in bytes.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// What a server on loopback answered so far, each request asked once.
pub struct Recording {
    upstream_port: u16,
    answers: Mutex<HashMap<String, Answer>>,
}

/// One answer in its parts.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status, which need not be one.
    pub status: String,
    /// The headers but for those that say how long the body is.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
    /// What `Content-Length` shall say of it, where that is not the truth.
    pub claimed_length: Option<String>,
    /// What is sent instead of all this.
    pub raw: Option<Vec<u8>>,
    /// Whether the connection stays open, silent.
    pub hangs: bool,
}

/// A server while it gives answers back.
pub struct Replay {
    port: u16,
    asked: Arc<AtomicUsize>,
    // Aborted when this is dropped.
    _server: JoinSet<()>,
}

impl Recording {
    /// Of the server without TLS at this port of 127.0.0.1.
    pub fn of(upstream_port: u16) -> Arc<Self> {
        Arc::new(Self { upstream_port, answers: Mutex::default() })
    }

    async fn answer(&self, port: u16, head: &str, body: &[u8]) -> Answer {
        let credential = head.lines().any(|line| {
            let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
            name == "authorization" || name == "private-token"
        });
        let key = format!("{credential} {}", head.lines().next().unwrap_or_default());
        let known = self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let mut answer = match known {
            Some(answer) => answer,
            None => {
                let answer = self.ask(head, body).await;
                self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(key, answer.clone());
                answer
            }
        };
        // The server names itself by the port that it was asked at.
        let name = |port: u16| format!("127.0.0.1:{port}");
        let renamed =
            |bytes: &[u8]| replaced(bytes, name(self.upstream_port).as_bytes(), name(port).as_bytes());
        answer.body = renamed(&answer.body);
        answer.headers.iter_mut().for_each(|(_, value)| *value = renamed(value));
        answer
    }

    /// HTTP/1.0 is answered without chunks, and the end of the connection is the end of the body.
    async fn ask(&self, head: &str, body: &[u8]) -> Answer {
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.upstream_port)).await.expect("the server behind");
        let mut lines = head.lines();
        let first = lines.next().unwrap_or_default().replace("HTTP/1.1", "HTTP/1.0");
        let kept = lines.filter(|line| {
            let line = line.to_ascii_lowercase();
            !line.is_empty() && !line.starts_with("connection:") && !line.starts_with("host:")
        });
        let kept = kept.fold(String::new(), |text, line| text + line + "\r\n");
        let request = format!("{first}\r\n{kept}host: 127.0.0.1:{}\r\n\r\n", self.upstream_port);
        stream.write_all(request.as_bytes()).await.expect("a request to the server behind");
        stream.write_all(body).await.expect("a request to the server behind");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("the answer of the server behind");
        Answer::parse(&bytes)
    }
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of the head");
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status").to_owned();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().as_bytes().to_vec()));
        let told = |name: &str| {
            ["content-length", "transfer-encoding", "connection"]
                .contains(&name.to_ascii_lowercase().as_str())
        };
        let headers = headers.filter(|(name, _)| !told(name)).collect();
        let body = bytes[end + 4..].to_vec();
        Self { status, headers, body, claimed_length: None, raw: None, hangs: false }
    }

    /// Puts a header in the place of all of that name.
    pub fn set_header(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.into()));
    }

    fn bytes(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let length = self.claimed_length.clone().unwrap_or_else(|| self.body.len().to_string());
        let mut bytes = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", self.status).into_bytes();
        // Neither of these statuses has a body or says how long it is.
        if !self.status.starts_with('1') && self.status != "204" {
            bytes.extend(format!("content-length: {length}\r\n").into_bytes());
        }
        for (name, value) in &self.headers {
            bytes.extend([name.as_bytes(), b": ", value.as_slice(), b"\r\n"].concat());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }
}

impl Replay {
    /// Starts a server that answers from the recording; `spoil` gets each answer with its number, from 0.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn start(
        recording: &Arc<Recording>,
        spoil: impl Fn(usize, &mut Answer) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its number").port();
        let (recording, spoil, asked) =
            (Arc::clone(recording), Arc::new(spoil), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&asked);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let (recording, spoil, counter) =
                    (Arc::clone(&recording), Arc::clone(&spoil), Arc::clone(&counter));
                connections.spawn(async move {
                    let Some((head, body)) = request(&mut stream).await else { return };
                    let mut answer = recording.answer(port, &head, &body).await;
                    spoil(counter.fetch_add(1, Ordering::SeqCst), &mut answer);
                    // Whoever has heard enough may have gone.
                    let _ = stream.write_all(&answer.bytes()).await;
                    if answer.hangs {
                        let _ = stream.read(&mut [0; 1]).await;
                    }
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { port, asked, _server: server }
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many requests it was sent.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// The head of a request and its body; `None` where the connection ended before.
async fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            let body_end = end + 4 + length.unwrap_or(0);
            if bytes.len() >= body_end {
                return Some((head, bytes[end + 4..body_end].to_vec()));
            }
        }
        if bytes.len() > MAX_REQUEST_BYTES || stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(old.len()).position(|window| window == old) {
        result.extend([&rest[..at], new].concat());
        rest = &rest[at + old.len()..];
    }
    result.extend(rest);
    result
}
