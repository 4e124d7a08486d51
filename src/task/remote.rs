//! The way from a target that policy admitted to a repository that git can be asked for.

use std::sync::Arc;

use super::Tools;
use super::diagnose::{Failure, Subject};
use super::login::{Prepared, https_remote, ssh_remote};
use super::stop::until_stopped;
use super::target::Target;
use crate::config::Server;
use crate::credential::{Credential, CredentialKind};
use crate::dial::{Destination, HttpClient};
use crate::git::{Access, Control, Remote};
use crate::provider::detect::{self, Known};
use crate::provider::rest::Api;
use crate::provider::{Place, Provider, Scope, azure_devops, gitlab};
use crate::remote_url::Scheme;
use crate::report::StageLog;

/// A repository with the means to reach it.
pub(super) struct Reached {
    pub(super) remote: Remote,
    /// What the URL means to the kind of server, as far as that is known.
    pub(super) place: Place,
    /// Whether everything goes over the line as it is.
    pub(super) is_plain: bool,
    pub(super) server: Arc<Server>,
    /// The credential, where git sends it by HTTP.
    pub(super) credential: Option<Credential>,
}

/// Goes to a repository, up to where git begins. By HTTP one measured connection is made; SSH measures by itself.
pub(super) async fn reach(
    prepared: Prepared,
    provider: Option<Provider>,
    tools: &Tools,
    control: &Control,
    log: &StageLog,
    subject: &mut Subject,
) -> Result<Reached, Failure> {
    let provider = provider.or(prepared.target.server.provider);
    let provider = provider.or_else(|| detect::by_shape(&prepared.target.url));
    subject.provider = provider;
    if prepared.target.is_ssh() {
        over_ssh(prepared, provider, tools)
    } else {
        over_https(prepared, provider, tools, control, log).await
    }
}

/// A client that has served the same work before, with what is known of the server.
pub(super) struct Open {
    server: Arc<Server>,
    client: HttpClient,
    provider: Provider,
}

impl Open {
    /// What can be used again of a way; nothing of one by SSH, where every repository has a login of its own.
    pub(super) fn of(reached: &Reached) -> Option<Self> {
        let Access::Https { client, .. } = &reached.remote.access else { return None };
        let (server, client) = (Arc::clone(&reached.server), client.clone());
        Some(Self { server, client, provider: reached.place.provider() })
    }

    fn serves(&self, target: &Target) -> bool {
        self.server.name == target.server.name && self.client.origin() == target.url.origin()
    }

    /// Whether it goes where the other one goes.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.server.name == other.server.name && self.client.origin() == other.client.origin()
    }
}

/// Goes to a further repository of the same work: nothing is measured or asked where a client serves it as well that
/// has been used before.
pub(super) async fn reach_another(
    prepared: Prepared,
    open: &[Open],
    tools: &Tools,
    control: &Control,
    log: &StageLog,
    subject: &mut Subject,
) -> Result<Reached, Failure> {
    match open.iter().find(|open| open.serves(&prepared.target)) {
        Some(known) => {
            subject.provider = Some(known.provider);
            by_client(prepared, Some(known.provider), known.client.clone(), control).await
        }
        None => reach(prepared, None, tools, control, log, subject).await,
    }
}

fn over_ssh(prepared: Prepared, provider: Option<Provider>, tools: &Tools) -> Result<Reached, Failure> {
    let Prepared { target, credential } = prepared;
    let key = credential.ok_or(Failure::NoCredential)?;
    let place = detect::over_ssh(Known { url: &target.url, base: None, provider, scope: None });
    let url = place.git_url().unwrap_or_else(|| target.url.clone());
    let remote = ssh_remote(url, &target, key, tools);
    Ok(Reached { remote, place, is_plain: false, server: target.server, credential: None })
}

async fn over_https(
    prepared: Prepared,
    provider: Option<Provider>,
    tools: &Tools,
    control: &Control,
    log: &StageLog,
) -> Result<Reached, Failure> {
    let endpoint = Destination::for_url(&prepared.target.url, &prepared.target.server);
    let connected = until_stopped(control, tools.door.connect(&endpoint, log)).await;
    drop(connected.map_err(Failure::Stopped)?.map_err(Failure::Dial)?);
    log.pass();
    let client = until_stopped(control, tools.door.client(&endpoint)).await;
    let client = client.map_err(Failure::Stopped)?.map_err(Failure::Dial)?;
    by_client(prepared, provider, client, control).await
}

async fn by_client(
    prepared: Prepared,
    provider: Option<Provider>,
    client: HttpClient,
    control: &Control,
) -> Result<Reached, Failure> {
    let Prepared { target, credential } = prepared;
    let base = target.server.provider.map(|_| &target.server.url);
    let known = Known { url: &target.url, base, provider, scope: None };
    let needs_provider = credential.as_ref().is_some_and(depends_on_provider);
    let place = place(known, needs_provider, &client, control).await?;
    let url = place.git_url().unwrap_or_else(|| target.url.clone());
    let is_plain = target.url.scheme() == Scheme::Http;
    let remote = https_remote(url, client, place.provider(), credential.as_ref());
    Ok(Reached { remote, place, is_plain, server: target.server, credential })
}

/// Whether the form in which a credential is sent depends on the kind of server.
fn depends_on_provider(credential: &Credential) -> bool {
    match credential.kind() {
        CredentialKind::Bearer => true,
        CredentialKind::Pat => credential.username.is_none(),
        CredentialKind::Password | CredentialKind::SshKey => false,
    }
}

/// What the URL means. The server is asked for its kind only where nobody names it and it matters.
async fn place(
    known: Known<'_>,
    needs_provider: bool,
    client: &HttpClient,
    control: &Control,
) -> Result<Place, Failure> {
    let git = || Place::Git(known.url.clone());
    Ok(match known.provider {
        Some(Provider::AzureDevops) => {
            Place::AzureDevops(azure_devops::Place::parse(known.url, known.base, known.scope))
        }
        // Without its suffix the path of a repository is the same below any relative root.
        Some(Provider::Gitlab) => {
            gitlab::Place::parse(known.url, "", Some(Scope::Repository)).map_or_else(git, Place::Gitlab)
        }
        None if needs_provider => {
            let anonymous = Api::anonymous(client.clone());
            let identified = until_stopped(control, detect::identify(&anonymous, known)).await;
            identified.map_err(Failure::Stopped)?.map_err(Failure::Provider)?.place
        }
        Some(Provider::Git) | None => git(),
    })
}
