//! A test over SSH: git itself, and REST beside it where there is a credential for that.

use super::Test;
use crate::git::{Access, Remote};
use crate::provider::detect::{self, Known};
use crate::provider::{Place, Provider, azure_devops, gitlab};
use crate::report::{Code, Stage};
use crate::task::diagnose::Failure;
use crate::task::login::{Prepared, ssh_remote};
use crate::task::target::Target;

/// What applies to SSH. The proxy's stage is recorded where there is one.
const STAGES: [Stage; 7] = [
    Stage::Policy,
    Stage::Resolve,
    Stage::Connect,
    Stage::HostKey,
    Stage::Authenticate,
    Stage::Repository,
    Stage::References,
];

impl Test<'_> {
    pub(super) async fn over_ssh(&mut self, prepared: Prepared) -> Result<(), Failure> {
        let Prepared { target, credential } = prepared;
        self.planned = STAGES.to_vec();
        let provider = self.request.provider.or(target.server.provider);
        let known = Known { url: &target.url, base: None, provider, scope: self.request.scope };
        let place = detect::over_ssh(known);
        self.set_place(&place);
        if place.provider() == Provider::Git && provider.is_none() {
            // Nothing but git was asked, so that nobody knows what else is there.
            self.report.target.provider = None;
            self.subject.provider = None;
        }
        let Some(key) = credential else { return Err(Failure::NoCredential) };
        let asked = self.rest_beside(&target, &place, provider).await?;
        // Whatever the form of the path, only the server can say what it leads to.
        let url = place.git_url().unwrap_or_else(|| target.url.clone());
        let host = target.url.host();
        let is_cloud = azure_devops::is_cloud_host(host) || gitlab::is_cloud_host(host);
        let mut remote = ssh_remote(url, &target, key, self.tools);
        if let Access::Ssh(login) = &mut remote.access {
            login.greets = place.provider() != Provider::Git && (provider.is_some() || is_cloud);
        }
        let outcome = self.read_references(&remote, "").await;
        if outcome.is_ok() {
            self.judge_host(&remote);
            self.take_greeting(&remote, place.provider());
        }
        Self::more_telling(outcome, asked)
    }

    /// REST beside SSH, where there is a credential for it. The failure inside counts after git has been asked.
    async fn rest_beside(
        &mut self,
        target: &Target,
        place: &Place,
        provider: Option<Provider>,
    ) -> Result<Result<(), Failure>, Failure> {
        if provider == Some(Provider::Git) {
            return Ok(Ok(()));
        }
        let Some(credential) = self.api_credential(&target.server).await? else { return Ok(Ok(())) };
        self.planned.extend([Stage::Identify, Stage::Authorize]);
        self.planned.sort();
        let asked = Box::pin(self.ask_beside_ssh(target, place, &credential)).await;
        if let Err(Failure::Stopped(_)) = asked { asked.map(Ok) } else { Ok(asked) }
    }

    /// Who the server takes us for, where it says so.
    fn take_greeting(&mut self, remote: &Remote, provider: Provider) {
        let Access::Ssh(login) = &remote.access else { return };
        let said = login.seen.greeting.get().filter(|_| provider == Provider::Gitlab);
        // The API may have told whose token it has; git's own user is the one that counts.
        if let Some(name) = said.and_then(|said| gitlab::welcomed(said)) {
            self.report.identity = Some(name);
        }
    }

    /// Warns of what works and should still be looked at.
    fn judge_host(&mut self, remote: &Remote) {
        let Access::Ssh(login) = &remote.access else { return };
        let Some(offered) = login.seen.offered.get() else { return };
        if offered.has_rsa_host_key_alone() {
            let seen = format!("it offers {}", offered.host_key.join(", "));
            self.warn(Code::HostKeyRsaOnly, Stage::HostKey, &seen, vec![]);
        }
    }
}
