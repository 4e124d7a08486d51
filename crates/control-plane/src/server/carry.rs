//! One session over a transport of it, from its beginning to its end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::{FutureExt, Sink, Stream};
use tokio::sync::OwnedSemaphorePermit;

use crate::api::App;
use crate::session::{self, Incoming, Outgoing, SessionContext};

/// Runs a session. A panic ends this session and nothing else: the engine misses the agent when it next writes to
/// it.
pub(crate) async fn carry<R, W>(app: &Arc<App>, reader: R, writer: W, handshake: OwnedSemaphorePermit)
where
    R: Stream<Item = Incoming> + Unpin + Send,
    W: Sink<Outgoing> + Unpin + Send,
{
    let context = SessionContext {
        store: app.store.clone(),
        engine: app.engine.clone(),
        public_urls: app.public_urls.clone(),
        times: app.times.clone(),
        limits: app.limits.clone(),
        handshake,
    };
    match AssertUnwindSafe(Box::pin(session::run(reader, writer, context))).catch_unwind().await {
        Ok(end) => tracing::info!(reason = %end, "a session ended"),
        Err(_) => tracing::error!("a session panicked"),
    }
}
