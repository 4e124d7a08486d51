//! A client's end of the control socket.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::{Answer, LINE_TIMEOUT, MAX_LINE_BYTES, Refusal, Request, VERSION, Versioned};

/// Why the daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens in any of these places.
    #[error("no daemon listens on {}", tried.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or "))]
    NoDaemon {
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },
    /// This user may not connect.
    #[error("this user may not use {}: it is for the daemon's user and its group", .0.display())]
    Denied(PathBuf),
    /// The daemon refuses.
    #[error("the daemon refuses: {message}")]
    Refused {
        /// Which kind of refusal.
        code: Refusal,
        /// Its words.
        message: String,
    },
    /// The daemon speaks another version.
    #[error("the daemon speaks version {0} of the control socket's protocol, this program version {VERSION}")]
    Version(u32),
    /// There was no answer in time.
    #[error("the daemon did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// The answer is none.
    #[error("the answer of the daemon cannot be read")]
    Broken,
}

impl AskError {
    /// Whether it is not known that there is a daemon at all.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoDaemon { .. } | Self::Denied(_))
    }
}

/// Sends a request to the daemon that listens in the first of these places, and waits for its answer.
///
/// # Errors
/// See [`AskError`].
pub async fn ask(places: &[PathBuf], request: &Request, limit: Duration) -> Result<Answer, AskError> {
    let limit = limit.max(LINE_TIMEOUT);
    let asked = async {
        let stream = connect(places).await?;
        exchange(stream, request).await
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(Ok(Answer::Error { code, message })) => {
            let message = message.chars().filter(|c| !c.is_control()).collect();
            Err(AskError::Refused { code, message })
        }
        Ok(answer) => answer,
        Err(_) => Err(AskError::Silent(limit)),
    }
}

async fn connect(places: &[PathBuf]) -> Result<UnixStream, AskError> {
    let mut denied = None;
    for place in places {
        match UnixStream::connect(place).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                denied.get_or_insert_with(|| place.clone());
            }
            Err(_) => {}
        }
    }
    Err(denied.map_or_else(|| AskError::NoDaemon { tried: places.to_vec() }, AskError::Denied))
}

async fn exchange(mut stream: UnixStream, request: &Request) -> Result<Answer, AskError> {
    let mut line = serde_json::to_vec(&Versioned::new(request)).map_err(|_| AskError::Broken)?;
    line.push(b'\n');
    // A daemon that refuses at once closes before it has read: its answer is there all the same.
    let _ = stream.write_all(&line).await;
    let mut answer = Vec::new();
    let mut reader = BufReader::new(stream).take(MAX_LINE_BYTES as u64);
    reader.read_until(b'\n', &mut answer).await.map_err(|_| AskError::Broken)?;
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = serde_json::from_slice(&answer).map_err(|_| AskError::Broken)?;
    if version != VERSION {
        return Err(AskError::Version(version));
    }
    let answer: Versioned<Answer> = serde_json::from_slice(&answer).map_err(|_| AskError::Broken)?;
    Ok(answer.message)
}
