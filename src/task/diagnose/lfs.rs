//! What it means that objects of Git LFS could not be had.

use super::{Finding, Subject};
use crate::git::LfsError;
use crate::git::lfs::ObjectProblem;
use crate::provider::Provider;
use crate::report::Code;

/// What remains where LFS cannot be had.
const WITHOUT: &str = "Clone without LFS: the files stay pointers.";

pub(super) fn finding(error: &LfsError, subject: &Subject) -> Finding {
    let remedies = match error {
        LfsError::NoCredential => {
            vec![format!(
                "Set {} to a token that may read the repository: LFS goes over HTTPS, where the SSH key counts for nothing.",
                subject.setting("api_credential", "--api-pat-file")
            )]
        }
        LfsError::NoHttps => vec![format!(
            "Declare the server's HTTPS by {}, its SSH by ssh beside it, and a token by api_credential.",
            subject.setting("url", "an https URL")
        )],
        LfsError::NotServed { .. } => {
            vec!["Switch Git LFS on for the repository.".to_owned(), WITHOUT.to_owned()]
        }
        LfsError::Denied { .. } => vec![may_read(subject), WITHOUT.to_owned()],
        LfsError::Elsewhere { host, .. } => elsewhere(host, subject),
        LfsError::Object { object, problem } => of_object(&object.oid.to_string(), problem, subject),
        LfsError::Refused { .. } | LfsError::Unexpected { .. } => vec![],
    };
    (Code::LfsFailed, error.to_string(), remedies)
}

/// The remedy where the credential may not.
fn may_read(subject: &Subject) -> String {
    let right = match subject.provider {
        Some(Provider::AzureDevops) => "the scope Code (Read), vso.code",
        Some(Provider::Gitlab) => "the scope read_repository, and its user the role Reporter",
        Some(Provider::Git) | None => "the right to read the repository's LFS objects",
    };
    match &subject.credential {
        Some(name) => format!("Give the credential `{name}` {right}."),
        None => format!("Use a credential with {right}."),
    }
}

fn elsewhere(host: &str, subject: &Subject) -> Vec<String> {
    let own = match subject.provider {
        Some(Provider::Gitlab) => {
            "Let GitLab hand the objects out itself: proxy_download = true for lfs in its object storage, and the right external_url.".to_owned()
        }
        Some(Provider::AzureDevops) => "Correct the server's public URL in its administration console.".to_owned(),
        Some(Provider::Git) | None => format!("Let the server name itself for its objects, not {host}."),
    };
    vec![own, WITHOUT.to_owned()]
}

fn of_object(oid: &str, problem: &ObjectProblem, subject: &Subject) -> Vec<String> {
    let push = || format!("Push it from a clone that has it: `git lfs push --object-id origin {oid}`.");
    match problem {
        ObjectProblem::Refused { code: 401 | 403, .. } | ObjectProblem::Answer { status: 401 | 403, .. } => {
            vec![may_read(subject)]
        }
        ObjectProblem::Refused { .. }
        | ObjectProblem::NoAction
        | ObjectProblem::Answer { status: 404 | 410, .. } => {
            vec![push(), WITHOUT.to_owned()]
        }
        ObjectProblem::WrongContent { .. }
        | ObjectProblem::TooLong { .. }
        | ObjectProblem::TooShort { .. }
        | ObjectProblem::SizeDiffers { .. } => {
            vec![
                "Look at what stands between here and the server's LFS store, then at the store itself."
                    .into(),
                push(),
            ]
        }
        ObjectProblem::HasExtensions => vec![WITHOUT.to_owned()],
        ObjectProblem::Interrupted { .. } | ObjectProblem::WrongRange | ObjectProblem::Answer { .. } => {
            vec!["Try again; if it stays, look at the server's LFS store and the proxy before it.".to_owned()]
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{Failure, failure};
    use super::*;
    use crate::git::lfs::{LfsOid, Named};
    use crate::report::Stage;

    fn subject(provider: Option<Provider>) -> Subject {
        let (server, credential) = (Some("lab".to_owned()), Some("lab_pat".to_owned()));
        Subject {
            provider,
            server,
            credential,
            url: "https://lab.corp/shop/web".into(),
            ..Subject::default()
        }
    }

    #[test]
    fn what_lfs_came_to_has_its_code_its_stage_and_a_remedy_that_names_the_thing() {
        let oid = LfsOid::parse(&"a1".repeat(32)).unwrap();
        let object = || Named { path: "media/big.bin".into(), oid };
        let message = || "Nothing here".to_owned();
        let of = |problem| LfsError::Object { object: object(), problem };
        let gitlab = Some(Provider::Gitlab);
        let elsewhere = |object| LfsError::Elsewhere { host: "https://s3.example".into(), object };
        let object_id = format!("--object-id origin {oid}");
        let cases = [
            (LfsError::NoCredential, None, "api_credential of [servers.lab]"),
            (LfsError::NoHttps, None, "url of [servers.lab]"),
            (LfsError::NotServed { status: 404, message: message() }, gitlab, "Git Large File Storage"),
            (
                LfsError::Denied { status: 403, message: message() },
                gitlab,
                "`lab_pat` the scope read_repository",
            ),
            (LfsError::Refused { status: 422, message: message() }, None, "LFS store"),
            (LfsError::Unexpected { status: 200, problem: "it is no JSON" }, None, "LFS store"),
            (elsewhere(Some(object())), gitlab, "proxy_download"),
            (elsewhere(None), None, "https://s3.example"),
            (of(ObjectProblem::Refused { code: 404, message: message() }), gitlab, &object_id),
            (of(ObjectProblem::NoAction), None, &object_id),
            (of(ObjectProblem::Answer { status: 403, message: message() }), None, "`lab_pat`"),
            (of(ObjectProblem::WrongContent { found: oid }), None, "between here and the server"),
            (of(ObjectProblem::TooShort { received: 1, size: 2 }), None, "between here and the server"),
            (of(ObjectProblem::HasExtensions), None, "without LFS"),
        ];
        for (error, provider, expected) in cases {
            let shown = error.to_string();
            let names_object = shown.contains("media/big.bin") && shown.contains(&oid.to_string());
            assert!(!matches!(error, LfsError::Object { .. }) || names_object, "{shown}");
            let failed = Failure::of_git(error.into(), provider);
            let stage = failed.stage(Some(Stage::Checkout));
            let diagnosis = failure(&failed, stage, &subject(provider));
            assert_eq!((diagnosis.code.as_str(), stage), ("lfs_failed", Stage::Checkout), "{shown}");
            assert!(diagnosis.summary.contains(&shown), "{diagnosis:?}");
            assert!(diagnosis.remedies.iter().any(|remedy| remedy.contains(expected)), "{diagnosis:?}");
        }
    }
}
