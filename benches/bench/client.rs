//! A client of the control plane's REST interface that is as plain as can be: what it takes itself counts in what it
//! measures.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::control_plane::ControlPlane;

/// One connection that is kept, as a platform's would be.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    authorization: String,
}

/// What came back.
pub(crate) struct Answer {
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Client {
    /// Connects as whoever started the control plane.
    pub(crate) async fn of(control_plane: &ControlPlane) -> Self {
        Self::connect(control_plane.port(), control_plane.token()).await
    }

    /// Connects with a token.
    pub(crate) async fn connect(port: u16, token: &str) -> Self {
        Self {
            stream: connect(port).await,
            buffer: Vec::new(),
            authorization: format!("host: 127.0.0.1\r\nauthorization: Bearer {token}\r\n"),
        }
    }

    /// Posts JSON.
    pub(crate) async fn post(&mut self, path: &str, json: &str) -> Answer {
        let (authorization, length) = (&self.authorization, json.len());
        let request = format!(
            "POST {path} HTTP/1.1\r\n{authorization}content-type: application/json\r\n\
             content-length: {length}\r\n\r\n{json}"
        );
        self.ask(&request).await
    }

    /// Gets something.
    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\n{}\r\n", self.authorization)).await
    }

    async fn ask(&mut self, request: &str) -> Answer {
        self.stream.write_all(request.as_bytes()).await.expect("an open connection");
        loop {
            if let Some(answer) = self.answer() {
                return answer;
            }
            let read = self.stream.read_buf(&mut self.buffer).await.expect("an answer");
            assert!(read > 0, "the connection was closed");
        }
    }

    /// An answer with a length, once it is there as a whole.
    fn answer(&mut self) -> Option<Answer> {
        let head_bytes = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.buffer[..head_bytes]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.expect("a length").trim().parse().expect("a number");
        if self.buffer.len() < head_bytes + length {
            return None;
        }
        let body = self.buffer.drain(..head_bytes + length).skip(head_bytes).collect();
        Some(Answer { head, body })
    }
}

/// A connection to a port of this host.
// The ban is the daemon's, and this is a client or a peer of the control plane.
#[allow(clippy::disallowed_methods)]
pub(crate) async fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket without delay");
    stream
}
