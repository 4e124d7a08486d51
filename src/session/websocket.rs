//! The WebSocket that carries a session: opened through the door, bounded in every direction.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{SinkExt as _, StreamExt as _};
use sortie_protocol::frame::{MAX_FRAME_BYTES, MAX_MESSAGE_BYTES};
use sortie_protocol::{AgentMessage, ControlMessage, FrameError, SUBPROTOCOL, WEBSOCKET_PATH};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WebSocketError};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::dial::{Destination, DialError, Door, Stream};
use crate::remote_url::RemoteUrl;
use crate::report::StageLog;
use crate::session::transport::Transport;

/// How long the upgrade may take once the connection stands.
pub const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

/// How much may wait to be written. Everything of one message fits, and nothing piles up behind it.
const MAX_WRITE_BUFFER_BYTES: usize = 2 * MAX_MESSAGE_BYTES;

/// How long one write may take before the peer counts as gone. The daemon's loop waits for it, so this is well
/// below the time of its watchdog and of what a lease has left when it is stopped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the closing of a connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// There is no connection.
    #[error("{0}")]
    Dial(#[from] DialError),
    /// The upgrade took too long.
    #[error("the control plane did not answer the WebSocket upgrade within {} s", UPGRADE_TIMEOUT.as_secs())]
    TimedOut,
    /// Something answered with another status than 101.
    #[error("the control plane answered the WebSocket upgrade with status {0}")]
    Status(u16),
    /// The control plane does not speak this version.
    #[error("the control plane does not speak {SUBPROTOCOL}")]
    Subprotocol,
    /// What answered does not speak WebSocket, or broke off.
    #[error("the WebSocket could not be opened or was cut off")]
    Broken,
}

/// What came over the line.
#[derive(Debug)]
pub enum Incoming {
    /// A message.
    Message(Box<ControlMessage>),
    /// A frame that is no message.
    NotUnderstood(FrameError),
    /// A ping or a pong.
    Alive,
    /// The connection is gone.
    Closed,
}

/// An open WebSocket.
pub struct Line(WebSocketStream<Stream>);

impl Line {
    /// Opens the WebSocket of the control plane at `base`.
    ///
    /// # Errors
    /// See [`LineError`].
    pub async fn open(door: &Door, destination: &Destination, base: &RemoteUrl) -> Result<Self, LineError> {
        let (line, date) =
            Self::upgraded(door.connect(destination, &StageLog::default()).await?, base).await?;
        if let Some(date) = date {
            door.note_date(destination, &date);
        }
        Ok(line)
    }

    /// Opens the WebSocket over a stream to the control plane at `base`.
    ///
    /// # Errors
    /// See [`LineError`].
    pub async fn over(stream: Stream, base: &RemoteUrl) -> Result<Self, LineError> {
        Self::upgraded(stream, base).await.map(|(line, _)| line)
    }

    async fn upgraded(stream: Stream, base: &RemoteUrl) -> Result<(Self, Option<String>), LineError> {
        let upgrade = upgrade(stream, base);
        tokio::time::timeout(UPGRADE_TIMEOUT, upgrade).await.map_err(|_| LineError::TimedOut)?
    }

    /// Waits for what comes next. Dropping the future loses nothing.
    pub async fn receive(&mut self) -> Incoming {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => match sortie_protocol::decode(&text) {
                Ok(message) => Incoming::Message(Box::new(message)),
                Err(error) => Incoming::NotUnderstood(error),
            },
            Some(Ok(Message::Binary(_))) => Incoming::NotUnderstood(FrameError::NotAMessage),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Incoming::Alive,
            Some(Err(WebSocketError::Capacity(CapacityError::MessageTooLong { size, .. }))) => {
                tracing::warn!(
                    size,
                    "the control plane sent a message over the limit; the connection is closed"
                );
                Incoming::Closed
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => Incoming::Closed,
        }
    }

    /// Sends a message. One that is over the limit for messages is left out, and the log says so.
    ///
    /// # Errors
    /// [`LineError::Broken`] where the connection is gone or takes nothing any more.
    pub async fn send(&mut self, message: &AgentMessage) -> Result<(), LineError> {
        match sortie_protocol::encode(message) {
            Ok(text) => self.write(Message::text(text)).await,
            // The line is not to blame, and another one would not help.
            Err(error) => {
                tracing::error!(%error, "a message was not sent");
                Ok(())
            }
        }
    }

    /// Sends a ping.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn ping(&mut self) -> Result<(), LineError> {
        self.write(Message::Ping(Vec::new().into())).await
    }

    /// Says goodbye, without waiting long for the answer.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.0.close(None)).await;
    }

    async fn write(&mut self, message: Message) -> Result<(), LineError> {
        let written = tokio::time::timeout(WRITE_TIMEOUT, self.0.send(message)).await;
        written.map_err(|_| LineError::TimedOut)?.map_err(|_| LineError::Broken)
    }
}

impl Transport for Line {
    fn receive(&mut self) -> BoxFuture<'_, Incoming> {
        Box::pin(Self::receive(self))
    }

    fn send<'a>(&'a mut self, message: &'a AgentMessage) -> BoxFuture<'a, Result<(), LineError>> {
        Box::pin(Self::send(self, message))
    }

    fn ping(&mut self) -> BoxFuture<'_, Result<(), LineError>> {
        Box::pin(Self::ping(self))
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(Self::close(*self))
    }
}

/// The open WebSocket, and the `Date` of the answer that opened it.
async fn upgrade(stream: Stream, base: &RemoteUrl) -> Result<(Line, Option<String>), LineError> {
    let request = Request::builder()
        .uri(format!("ws://{}{}{WEBSOCKET_PATH}", base.authority(), base.path()))
        .header("Host", base.authority())
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        .header("Sec-WebSocket-Protocol", SUBPROTOCOL)
        .header("User-Agent", concat!("sortie/", env!("CARGO_PKG_VERSION")))
        .body(())
        .map_err(|_| LineError::Broken)?;
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_FRAME_BYTES))
        .read_buffer_size(8 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_WRITE_BUFFER_BYTES);
    let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(limits)).await;
    let (socket, answer) = opened.map_err(|error| match error {
        WebSocketError::Http(answer) => LineError::Status(answer.status().as_u16()),
        WebSocketError::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::SecWebSocketSubProtocolError(_),
        ) => LineError::Subprotocol,
        _ => LineError::Broken,
    })?;
    let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
    if text("Sec-WebSocket-Protocol") != Some(SUBPROTOCOL) {
        return Err(LineError::Subprotocol);
    }
    let date = text("Date").map(str::to_owned);
    Ok((Line(socket), date))
}
