//! REST beside git: the API's stages with a credential of their own, where git uses an SSH key, a password or
//! a token that the API does not take.
//!
//! What the target needs is git. So a refusal of the API is a warning, `api_refused`, with the reason for it; only
//! what holds for git as well ends the test: a release that is not supported, and a repository that has moved or
//! is disabled.

use super::Test;
use super::reach::Declared;
use crate::config::Server;
use crate::credential::Credential;
use crate::dial::{Destination, HttpClient};
use crate::git;
use crate::policy::{NotDeclared, Refusal};
use crate::provider::detect::Identified;
use crate::provider::{Place, ProviderError, gitlab};
use crate::report::{Stage, StageRecord, Status};
use crate::task::diagnose::{self, Failure};
use crate::task::login;
use crate::task::stop::until_stopped;
use crate::task::target::Target;

/// Why the API was of no use, which counts once git has read the repository.
pub(super) struct RefusedBeside {
    pub(super) stage: Stage,
    pub(super) reason: String,
    pub(super) remedies: Vec<String>,
}

impl Test<'_> {
    /// The credential for REST beside that of git, where the operator declared one.
    pub(super) async fn api_credential(&mut self, server: &Server) -> Result<Option<Credential>, Failure> {
        let loaded = login::api_credential(server, self.tools, self.control).await?;
        if let Some(credential) = &loaded {
            self.log.fact_at(Stage::Policy, "api_credential", credential.name.clone());
        }
        Ok(loaded)
    }

    /// The API's stages with a credential of their own, over HTTPS. The place that comes back is the one to
    /// read by git; there is none where the API was of no use.
    pub(super) async fn ask_beside(
        &mut self,
        client: &HttpClient,
        identified: Identified,
        credential: &Credential,
    ) -> Result<Option<Place>, Failure> {
        let asked = self.ask_with(client, identified, credential).await;
        // Git's credential is another one: the API's word about its own says nothing of it.
        self.api_accepted = false;
        match asked {
            Err(failed) if !ends_test(&failed) => {
                self.note_refusal_beside(&failed, credential);
                Ok(None)
            }
            asked => asked.map(Some),
        }
    }

    /// The API's stages for a target that git reaches by SSH. They are taken out of the log, so that the way by
    /// SSH records its own; what they come to counts after that.
    pub(super) async fn ask_beside_ssh(
        &mut self,
        target: &Target,
        place: &Place,
        credential: &Credential,
    ) -> Result<(), Failure> {
        let asked = self.ask_by_https(target, place, credential).await;
        self.api_accepted = false;
        let asked = match asked {
            Err(failed) if !ends_test(&failed) => {
                self.note_refusal_beside(&failed, credential);
                Ok(())
            }
            asked => asked,
        };
        self.other_way.extend(self.log.take_from(Stage::Resolve));
        asked
    }

    /// Which of two failures says more: git hides behind one sentence what the API tells apart.
    pub(super) fn more_telling(git: Result<(), Failure>, api: Result<(), Failure>) -> Result<(), Failure> {
        match (git, api) {
            (git @ Err(Failure::Stopped(_)), _) => git,
            (Ok(()) | Err(Failure::Git(git::Error::RepositoryUnavailable { .. })), Err(api)) => Err(api),
            (git, _) => git,
        }
    }

    async fn ask_by_https(
        &mut self,
        target: &Target,
        place: &Place,
        credential: &Credential,
    ) -> Result<(), Failure> {
        let url = login::rest_url(place, &target.server);
        let server = self.tools.policy.admit(&url).map_err(|refusal| Failure::Target(refusal.into()))?;
        if server.name != target.server.name {
            let host = NotDeclared::Host(url.host().to_owned());
            return Err(Failure::Target(Refusal::NotDeclared(host).into()));
        }
        let destination = Destination::for_url(&url, &server);
        let client = until_stopped(self.control, self.tools.door.client(&destination)).await;
        let client = client.map_err(Failure::Stopped)?.map_err(Failure::Dial)?;
        let provider = self.request.provider.or(server.provider);
        let by_https = Target { server: server.clone(), url, ssh_url: None };
        let identified = self.identify(&client, &by_https, provider).await?;
        let provider = identified.place.provider();
        self.subject.provider = Some(provider);
        self.report.target.provider = Some(provider);
        self.declared = Some(Declared { server, place: identified.place.clone() });
        self.ask_with(&client, identified, credential).await.map(|_| ())
    }

    async fn ask_with(
        &mut self,
        client: &HttpClient,
        identified: Identified,
        credential: &Credential,
    ) -> Result<Place, Failure> {
        match identified.place {
            Place::Gitlab(place) => {
                let api = gitlab::api(client, credential).ok_or(Failure::KindMismatch)?;
                let asked = self.gitlab_api(&api, place, gitlab::is_oauth(credential), false);
                Ok(Place::Gitlab(Box::pin(asked).await?))
            }
            Place::AzureDevops(place) => {
                let asked = self.azure_api(client, place, credential, &identified.greeting);
                Ok(Place::AzureDevops(Box::pin(asked).await?))
            }
            place @ Place::Git(_) => {
                let reason = "neither Azure DevOps nor GitLab answers there".to_owned();
                self.refused_beside =
                    Some(RefusedBeside { stage: Stage::Identify, reason, remedies: vec![] });
                Ok(place)
            }
        }
    }

    /// Keeps the reason why the API was of no use, in the words of its own diagnosis.
    fn note_refusal_beside(&mut self, failed: &Failure, credential: &Credential) {
        let stage = failed.stage(self.log.current());
        let mut subject = self.subject.clone();
        subject.kind = Some(credential.kind());
        subject.credential = Some(credential.name.clone());
        let diagnosis = diagnose::failure(failed, stage, &subject);
        let code = diagnosis.code.as_str();
        self.log.fact_at(stage, "api_refused", code);
        let reason = format!("{code}: {}", diagnosis.summary.trim_end_matches('.'));
        self.refused_beside = Some(RefusedBeside { stage, reason, remedies: diagnosis.remedies });
    }

    /// Marks a stage as warned that was recorded on the other way.
    pub(super) fn warn_other_way(&mut self, stage: Stage) {
        let of_stage = |record: &&mut StageRecord| record.stage == stage;
        if let Some(record) = self.other_way.iter_mut().find(of_stage)
            && record.status == Status::Passed
        {
            record.status = Status::Warned;
        }
    }
}

/// Whether the API's word holds for git as well.
fn ends_test(failed: &Failure) -> bool {
    match failed {
        Failure::Stopped(_) => true,
        Failure::Provider(error) => matches!(
            error,
            ProviderError::TooOld { .. }
                | ProviderError::RepositoryMoved { .. }
                | ProviderError::RepositoryDisabled
        ),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::provider::Provider;
    use crate::provider::detect::{Known, over_ssh};
    use crate::remote_url::RemoteUrl;
    use crate::task::login::rest_url;

    fn url(text: &str) -> RemoteUrl {
        RemoteUrl::parse(text).unwrap()
    }

    #[test]
    fn the_api_is_below_the_declared_url_whatever_ssh_says() {
        let cases = [
            (
                Provider::Gitlab,
                "ssh://git@gl.corp:2222/shop/web.git",
                "https://gl.corp:8443",
                "https://gl.corp:8443/shop/web.git",
            ),
            (
                Provider::Gitlab,
                "git@gl.corp:shop/web.git",
                "https://gl.corp/gitlab",
                "https://gl.corp/gitlab/shop/web.git",
            ),
            (
                Provider::Gitlab,
                "git@gl.corp:shop/web.git",
                "https://gl.corp/shop",
                "https://gl.corp/shop/web.git",
            ),
            (Provider::Gitlab, "git@gl.corp:shop/web.git", "ssh://gl.corp", "https://gl.corp/shop/web.git"),
            (
                Provider::AzureDevops,
                "ssh://ado.corp:22/tfs/Coll/Shop/_git/web",
                "https://ado.corp/tfs",
                "https://ado.corp/tfs/Coll/Shop/_git/web",
            ),
            (
                Provider::AzureDevops,
                "git@ssh.dev.azure.com:v3/org/Shop/web",
                "https://dev.azure.com/org",
                "https://dev.azure.com/org/Shop/_git/web",
            ),
        ];
        for (provider, ssh, base, expected) in cases {
            let ssh = url(ssh);
            let place = over_ssh(Known { url: &ssh, base: None, provider: Some(provider), scope: None });
            let server = Server::new("s", Some(provider), url(base));
            assert_eq!(rest_url(&place, &server).to_string(), expected, "{ssh}");
        }
    }
}
