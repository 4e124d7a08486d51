//! What kept an artifact from the control plane.

use super::{Finding, Subject, connection};
use crate::artifact::UploadError;
use crate::dial::HttpError;
use crate::report::Code;

pub(super) fn no_uploads() -> Finding {
    let remedy = "Let the task come from a control plane: an artifact goes to nowhere else.";
    (Code::DeliveryFailed, "no control plane is at hand".to_owned(), vec![remedy.to_owned()])
}

pub(super) fn upload(error: &UploadError) -> Finding {
    let seen = error.to_string();
    let remedy = match error {
        UploadError::Cancelled => return (Code::Cancelled, seen, vec![]),
        UploadError::DeadlineExceeded => return (Code::DeadlineExceeded, seen, vec![]),
        UploadError::Unreachable(error) => return (Code::DeliveryFailed, seen, unreachable(error)),
        UploadError::SourceFailed => {
            "Try again, and look at the agent's log for what ended the making of the artifact.".to_owned()
        }
        UploadError::Unavailable { status, code } => format!(
            "Look at the control plane's log, and at the proxies before it: they answered {status} ({code}) until \
             the deadline."
        ),
        UploadError::TooLarge { limit } => format!(
            "Deliver less, such as certain paths or a depth, or let the control plane take more than {limit} bytes: \
             `sortie-control serve --artifact-bytes`."
        ),
        UploadError::StoreFull { .. } => "Make room at the control plane: remove artifacts with `DELETE \
             /api/v1/artifacts/ID`, raise --artifacts-total-bytes, or enlarge the disk that they lie on."
            .to_owned(),
        UploadError::AttemptRefused => {
            "Look at the task's attempts at the control plane: this one was cancelled, or \
             given up because its lease was not renewed in time."
                .to_owned()
        }
        UploadError::Gone => {
            "Try again: the control plane drops an upload that lies still for an hour, and one whose \
             attempt has ended."
                .to_owned()
        }
        UploadError::Damaged => {
            "Try again; if it stays, look for a proxy before the control plane that alters what is \
             sent through it."
                .to_owned()
        }
        UploadError::NotAControlPlane { .. } => {
            "Let the control plane be of the agent's version or a later one, and \
             every proxy before it pass /agent/v1/artifacts on."
                .to_owned()
        }
        UploadError::Refused { code, .. } => {
            format!("Look at the control plane's log for what it refused with {code}.")
        }
    };
    (Code::DeliveryFailed, seen, vec![remedy])
}

/// What mends the way to the control plane, which is known where no connection came about.
fn unreachable(error: &HttpError) -> Vec<String> {
    let subject = Subject { is_control_plane: true, ..Subject::default() };
    let (_, _, mut remedies) = connection::http(error, &subject);
    remedies.push("See what `sortie doctor` says of the way to the control plane.".to_owned());
    remedies
}
