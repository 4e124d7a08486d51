//! What goes by itself: expired artifacts, abandoned uploads, and what a failed attempt left.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Artifacts;
use crate::engine::wall_clock;
use crate::store::{Millis, StoreError};

/// How many artifacts are removed before the next look at the database.
const BATCH: u32 = 100;

/// Removes what is to go, again and again, until `stop` is cancelled.
pub(crate) async fn sweep(artifacts: Artifacts, stop: CancellationToken) {
    let mut turns = interval(artifacts.0.times.artifact_sweep.max(Duration::from_millis(1)));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = once(&artifacts, &stop).await {
            tracing::warn!(%error, "artifacts were not looked through");
        }
    }
}

async fn once(artifacts: &Artifacts, stop: &CancellationToken) -> Result<(), StoreError> {
    let inner = &artifacts.0;
    let now = wall_clock();
    let idle = Millis::try_from(inner.times.artifact_idle.as_millis()).unwrap_or(Millis::MAX);
    let found = inner.store.sweep_artifacts(now, now.saturating_sub(idle), BATCH).await?;
    for id in found {
        if stop.is_cancelled() {
            break;
        }
        tracing::info!(artifact.id = %id, "an artifact goes");
        artifacts.remove(id).await;
    }
    Ok(())
}
