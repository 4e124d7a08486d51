//! From a target to what is needed to go there: the admitted URL, the credential, the way in.

use std::sync::Arc;

use super::Tools;
use super::diagnose::{Failure, Subject};
use super::stop::until_stopped;
use super::target::{Target, TargetError, TargetSpec};
use crate::config::Server;
use crate::credential::{Credential, CredentialKind, LoadError};
use crate::dial::{Destination, HttpClient};
use crate::git::{Access, Control, Remote};
use crate::policy::Refusal;
use crate::provider::{Place, Provider, azure_devops, gitlab};
use crate::remote_url::{RemoteUrl, Scheme};
use crate::report::{Stage, StageLog};
use crate::secret::Secret;
use crate::ssh::{KnownHosts, Login};

/// The user at an SSH host where neither the URL nor the credential names one.
const DEFAULT_SSH_USER: &str = "git";

/// A target that policy admitted, with the credential for it.
pub(super) struct Prepared {
    pub(super) target: Target,
    pub(super) credential: Option<Credential>,
}

/// Asks policy about a target and finds the name of the credential for it. Nothing is opened for that.
pub(super) fn admit(
    spec: &TargetSpec,
    asked: Option<&str>,
    tools: &Tools,
    subject: &mut Subject,
) -> Result<(Target, Option<String>), Failure> {
    let target = spec.resolve(&tools.policy).map_err(Failure::Target)?;
    subject.url = target.url.to_string();
    subject.host = target.url.host().to_owned();
    subject.set_server(&target.server);
    match target.credential_name(asked) {
        Ok(name) => Ok((target, name)),
        // A name that this agent does not have at all is no matter of policy: another agent may have it.
        Err(TargetError::Refused(Refusal::CredentialNotListed { credential: name, .. }))
            if tools.credentials.kind(&name).is_none() =>
        {
            Err(Failure::Load(LoadError::Unknown { name }))
        }
        Err(error) => Err(Failure::Target(error)),
    }
}

/// Asks policy and loads the credential: the stage `policy`.
pub(super) async fn prepare(
    spec: &TargetSpec,
    asked: Option<&str>,
    tools: &Tools,
    control: &Control,
    log: &StageLog,
    subject: &mut Subject,
) -> Result<Prepared, Failure> {
    log.begin(Stage::Policy);
    let (mut target, name) = admit(spec, asked, tools, subject)?;
    log.fact("server", target.server.name.clone());
    if let Some(name) = &name {
        log.fact("credential", name.clone());
    }
    log.pass();
    let credential = match &name {
        Some(name) => {
            subject.set_credential(name);
            subject.kind = tools.credentials.kind(name);
            let loaded = until_stopped(control, tools.credentials.load(name)).await;
            Some(loaded.map_err(Failure::Stopped)?.map_err(Failure::Load)?)
        }
        None => None,
    };
    let is_key = credential.as_ref().is_some_and(|credential| credential.kind() == CredentialKind::SshKey);
    if is_key && let Some(url) = target.ssh_url.take() {
        subject.url = url.to_string();
        subject.host = url.host().to_owned();
        target.url = url;
    }
    match (target.url.scheme(), is_key) {
        (Scheme::Ssh, false) if credential.is_none() => Err(Failure::NoCredential),
        (Scheme::Ssh, false) | (Scheme::Https | Scheme::Http, true) => Err(Failure::KindMismatch),
        _ => Ok(Prepared { target, credential }),
    }
}

/// Loads the credential for REST that the operator declared beside that of git; `None` where there is none.
pub(super) async fn api_credential(
    server: &Server,
    tools: &Tools,
    control: &Control,
) -> Result<Option<Credential>, Failure> {
    let Some(name) = &server.api_credential else { return Ok(None) };
    let loaded = until_stopped(control, tools.credentials.load(name)).await;
    loaded.map_err(Failure::Stopped)?.map_err(Failure::Load).map(Some)
}

/// For whom a mirror is: a credential of the operator's, which is the same one when its secret is replaced.
pub(super) fn identity(credential: Option<&Credential>) -> String {
    credential.map_or_else(
        || "anonymous".to_owned(),
        |credential| {
            let user = credential.username.as_deref().unwrap_or_default();
            format!("{} {} {user}", credential.name, credential.kind().as_str())
        },
    )
}

/// Where the API of a place is that git reaches by SSH: below the URL that the operator declared for the server.
/// A URL for SSH says nothing of a port for HTTPS or of GitLab's relative root.
pub(super) fn rest_url(place: &Place, server: &Server) -> RemoteUrl {
    let https = place.canonical_https();
    let base = &server.url;
    if base.scheme() == Scheme::Ssh {
        return https;
    }
    let declared = base.with_path(https.path());
    if base.contains(&declared) {
        declared
    } else {
        base.with_path(&format!("{}{}", base.path(), https.path()))
    }
}

/// The `Authorization` header for git over HTTP.
pub(super) fn git_authorization(provider: Provider, credential: Option<&Credential>) -> Option<Secret> {
    let credential = credential?;
    match provider {
        Provider::Gitlab => gitlab::git_authorization(credential),
        Provider::AzureDevops | Provider::Git => credential.git_authorization(provider.token_user()),
    }
}

/// A repository over HTTP.
pub(super) fn https_remote(
    url: RemoteUrl,
    client: HttpClient,
    provider: Provider,
    credential: Option<&Credential>,
) -> Remote {
    let authorization = git_authorization(provider, credential);
    Remote { url, access: Access::Https { client, authorization } }
}

/// The account at an SSH server. What the operator fixed, with the key or in the server's URL, goes before
/// what a task's URL says: a key must not be used as any account that a control plane thinks of.
fn ssh_user(url: &RemoteUrl, server: &Server, key: &Credential) -> String {
    let declared = server.ssh.as_ref().and_then(RemoteUrl::user).or_else(|| server.url.user());
    let fixed = key.username.as_deref().or(declared);
    fixed.or(url.user()).unwrap_or(DEFAULT_SSH_USER).to_owned()
}

/// A repository over SSH. `key` is an SSH key.
pub(super) fn ssh_remote(url: RemoteUrl, target: &Target, key: Credential, tools: &Tools) -> Remote {
    let user = ssh_user(&url, &target.server, &key);
    let rsa_alone = azure_devops::is_cloud_host(url.host());
    let login = Login {
        rsa_alone,
        greets: false,
        door: Arc::clone(&tools.door),
        destination: Destination::for_url(&url, &target.server),
        user,
        key,
        known_hosts: KnownHosts {
            file: target.server.known_hosts_file.clone(),
            pins: target.server.host_keys.clone(),
            pins_key: format!("servers.{}.host_keys", target.server.name),
        },
        seen: Arc::default(),
    };
    Remote { url, access: Access::Ssh(login) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::credential::{Material, PrivateKey};

    #[test]
    fn a_task_cannot_choose_another_account_than_the_operator_fixed() {
        let url = |text: &str| RemoteUrl::parse(text).unwrap();
        let user = |declared: Option<&str>, username: Option<&str>, asked: &str| {
            let server =
                Server { ssh: declared.map(url), ..Server::new("lab", None, url("https://git.example")) };
            let key = PrivateKey::Text { text: Secret::new(String::new()), passphrase: None };
            let material = Material::SshKey { key, source: String::new() };
            let username = username.map(str::to_owned);
            ssh_user(&url(asked), &server, &Credential { name: "key".into(), username, material })
        };
        let asked = "ssh://root@git.example/x";
        assert_eq!(user(Some("ssh://git@git.example"), Some("svc"), asked), "svc");
        assert_eq!(user(Some("ssh://git@git.example"), None, asked), "git");
        assert_eq!(user(Some("ssh://git.example"), None, asked), "root");
        assert_eq!(user(None, None, "ssh://git.example/x"), DEFAULT_SSH_USER);
    }
}
