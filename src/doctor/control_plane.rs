//! The way to the control plane: the stages of a connection test, then the route that agents use.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::DATE;
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::clock::Offset;
use super::{Check, Mark};
use crate::agent::ControlPlane;
use crate::dial::{DialError, Door};
use crate::report::{Diagnosis, StageLog};
use crate::session::choice::Said;
use crate::session::line::LineError;
use crate::session::long_poll::LongPoll;
use crate::session::websocket::WebSocket;
use crate::task;

const NAME: &str = "control_plane";

/// How long the way to the control plane may take.
const TIMEOUT: Duration = Duration::from_secs(45);

/// Goes the way that a session goes, up to the upgrade and no further: a `hello` would end the daemon's session.
pub(super) async fn examine(door: &Door, place: &ControlPlane, deadline: Instant) -> (Check, Option<Offset>) {
    let log = StageLog::default();
    let deadline = deadline.min(Instant::now() + TIMEOUT);
    let gone = tokio::time::timeout_at(deadline, go(door, place, &log)).await;
    let url = place.url.to_string();
    let (check, offset) = match gone {
        Ok(Ok(Way { blocked: None, offset })) => {
            (Check::new(NAME, Mark::Passed, format!("{url} answers as a control plane")), offset)
        }
        Ok(Ok(Way { blocked: Some(error), offset })) => (only_polled(&error, place), offset),
        Ok(Err(LineError::Dial(error))) => (failed_to_dial(&error, place, &log), None),
        Ok(Err(error)) => (failed_to_upgrade(&error, place), None),
        Err(_) => {
            let stage = log.running().map_or("upgrade", |stage| stage.as_str());
            let summary = format!("{url} did not answer in time; it was in the stage {stage}");
            (Check::new(NAME, Mark::Failed, summary).remedy(firewall(place)), None)
        }
    };
    let stages: Vec<_> = log.records().iter().map(task::wire_stage).collect();
    (Check { report: Some(json!({ "url": url, "stages": stages })), ..check.fact("url", url) }, offset)
}

/// The check of an agent that knows no control plane.
pub(super) fn unknown() -> Check {
    Check::new(NAME, Mark::Skipped, "the configuration names none, and the agent is not enrolled")
        .remedy("Set control_plane.url, unless this host is for sortie test and sortie clone alone.")
}

/// A way that works.
struct Way {
    /// Why no WebSocket passes, where long polling does.
    blocked: Option<LineError>,
    offset: Option<Offset>,
}

async fn go(door: &Door, place: &ControlPlane, log: &StageLog) -> Result<Way, LineError> {
    let stream = door.connect(&place.destination, log).await.inspect_err(|_| log.fail())?;
    log.pass();
    let blocked = match WebSocket::over(stream, &place.url).await {
        Ok(line) => {
            line.close().await;
            None
        }
        Err(error) if error.said() == Said::Blocked => {
            let polled = LongPoll::open(door, &place.destination, &place.url).await;
            // What is wrong with the way that is wanted says more than what is wrong with the other one.
            let Ok(line) = polled else { return Err(error) };
            line.close().await;
            Some(error)
        }
        Err(error) => return Err(error),
    };
    // The upgrade is what counts; a control plane without a date in its answers leaves the clock unjudged.
    Ok(Way { blocked, offset: offset(door, place).await })
}

/// The check of a control plane that is reached by long polling alone.
fn only_polled(error: &LineError, place: &ControlPlane) -> Check {
    let summary = format!("{} is reached by long polling alone: {error}", place.url);
    Check::new(NAME, Mark::Warned, summary).remedy(
        "It works. For fewer requests let every proxy in between pass WebSocket upgrades on: it must forward the headers Upgrade and Connection.",
    )
}

async fn offset(door: &Door, place: &ControlPlane) -> Option<Offset> {
    let client = door.client(&place.destination).await.ok()?;
    let path = format!("{}/healthz", place.url.path());
    let begun = Instant::now();
    let response = client.send(client.request(Method::GET, &path)).await.ok()?;
    let header = response.headers().get(DATE)?.to_str().ok()?;
    Offset::from_date(header, OffsetDateTime::now_utc(), begun.elapsed())
}

fn failed_to_dial(error: &DialError, place: &ControlPlane, log: &StageLog) -> Check {
    let ca_file = place.destination.ca_file.as_deref();
    let diagnosis: Diagnosis = task::control_plane_diagnosis(error, &place.url.to_string(), ca_file);
    log.fail_at(diagnosis.stage);
    let summary =
        format!("{} ({}): {}", diagnosis.code.as_str(), diagnosis.stage.as_str(), diagnosis.summary);
    let check = Check::new(NAME, Mark::Failed, summary).fact("code", diagnosis.code.as_str());
    diagnosis.remedies.iter().fold(check, |check, remedy| check.remedy(remedy.as_str()))
}

fn failed_to_upgrade(error: &LineError, place: &ControlPlane) -> Check {
    let check = Check::new(NAME, Mark::Failed, error.to_string());
    let url = &place.url;
    match error {
        LineError::Status(404 | 405) => check
            .remedy(format!("Check control_plane.url: {url} must be the base under which /agent/v1 lies."))
            .remedy("Let a reverse proxy in front of the control plane pass /agent/v1 on."),
        LineError::Status(502..=504) => {
            check.remedy("Start the control plane: what answers is a proxy that does not reach it.")
        }
        LineError::Busy { .. } | LineError::Refused(_) => check.remedy("Ask again in a minute; then look at the control plane's log."),
        LineError::Status(status) => check.fact("status", *status).remedy(
            "Let every proxy in between pass WebSocket upgrades on: it must forward the headers Upgrade and Connection.",
        ),
        LineError::Subprotocol => {
            check.remedy(format!("Check that {url} is a control plane of Sortie, of a version that speaks to this agent."))
        }
        LineError::TimedOut | LineError::Broken | LineError::Dial(_) => check
            .remedy("Let every proxy in between pass WebSocket upgrades on, and keep such connections open.")
            .remedy(firewall(place)),
    }
}

fn firewall(place: &ControlPlane) -> String {
    format!("Have the firewall let this host out to {} (TCP).", place.destination.endpoint())
}
