//! What it means that a submodule could not be taken along.

use super::{Finding, OfSubmodule, Subject, advised};
use crate::report::{Code, Diagnosis, Stage};
use crate::task::target::TargetError;

use super::Failure;

pub(super) fn finding(submodule: &OfSubmodule, stage: Stage) -> Finding {
    let OfSubmodule { path, subject, failure } = submodule;
    if let Failure::Target(error) = failure {
        return not_allowed(path, error, subject);
    }
    let (code, seen, remedies) = super::finding(failure, stage, subject);
    let which = format!("the submodule `{path}` of {}", subject.url);
    (code, if seen.is_empty() { which } else { format!("{which}: {seen}") }, remedies)
}

/// The warning about a submodule that was left out because policy does not allow it.
pub(in crate::task) fn refused(path: &str, error: &TargetError, subject: &Subject) -> Diagnosis {
    let (code, seen, remedies) = not_allowed(path, error, subject);
    advised(code, Stage::Checkout, &format!("{seen}; it is left out"), remedies, subject)
}

fn not_allowed(path: &str, error: &TargetError, subject: &Subject) -> Finding {
    let mut remedies = vec![
        "Leave it out: name the submodules that are needed, or set skip_refused_submodules (--skip-refused-submodules)."
            .to_owned(),
    ];
    if let TargetError::Refused(_) = error {
        let declare = format!("Declare a server for {} in the agent's configuration.", subject.url);
        remedies.insert(0, declare);
    }
    (Code::SubmoduleNotAllowed, format!("`{path}` is at {}: {error}", subject.url), remedies)
}
