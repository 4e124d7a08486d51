//! Whether this agent has a key and where it is registered.

use serde_json::Value;

use super::{Check, Mark};
use crate::config::Config;
use crate::identity::{self, IdentityError};

const NAME: &str = "enrollment";

/// Looks at the identity in the state directory; where this user may not, at what the daemon tells. It reads files.
pub fn examine(config: &Config, status: Option<&Value>) -> Check {
    let enroll = |url: &str| {
        format!(
            "Get a token from the control plane's administrator, then: sudo -u sortie sortie enroll --control-plane {url} --token-file FILE"
        )
    };
    let configured = config.control_plane.as_ref();
    let url = configured.map(|control_plane| control_plane.url.to_string()).unwrap_or_default();
    match identity::load(&config.agent.state_dir) {
        Ok(identity) if configured.is_some() && url != identity.control_plane => {
            let summary =
                format!("the agent is enrolled at {}, and the configuration says {url}", identity.control_plane);
            Check::new(NAME, Mark::Failed, summary)
                .remedy("Correct control_plane.url, or run sortie unenroll and enroll again.")
        }
        Ok(identity) => {
            let summary = format!("enrolled at {} as {}", identity.control_plane, identity.agent_id);
            Check::new(NAME, Mark::Passed, summary)
                .fact("agent_id", identity.agent_id)
                .fact("control_plane", identity.control_plane)
        }
        Err(IdentityError::NotEnrolled(_)) if configured.is_none() => {
            Check::new(NAME, Mark::Skipped, "not enrolled, and the configuration names no control plane")
        }
        Err(IdentityError::NotEnrolled(_)) if configured.is_some_and(|c| c.enrollment_token.is_some()) => {
            Check::new(NAME, Mark::Warned, "not enrolled yet; the daemon enrolls with its token when it starts")
                .remedy("Start the daemon: sudo systemctl start sortie")
        }
        Err(error @ IdentityError::NotEnrolled(_)) => {
            Check::new(NAME, Mark::Failed, error.to_string()).remedy(enroll(&url))
        }
        Err(IdentityError::State { kind: std::io::ErrorKind::PermissionDenied, path }) => {
            match status.and_then(|status| status["agent"]["id"].as_str()) {
                Some(id) => Check::new(NAME, Mark::Passed, format!("enrolled as {id}, as the daemon says")).fact("agent_id", id),
                None => Check::new(NAME, Mark::Skipped, format!("{} is for the agent's user alone", path.display()))
                    .remedy("Run it as the agent's user or as root: sudo -u sortie sortie doctor"),
            }
        }
        Err(error) => Check::new(NAME, Mark::Failed, error.to_string()).remedy(format!(
            "Move identity.json in {} away and enroll again: the old registration can be revoked at the control plane.",
            config.agent.state_dir.display()
        )),
    }
}
