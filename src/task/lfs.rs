//! Where the LFS objects of a repository are, and as whom they are asked for.

use super::Tools;
use super::diagnose::Failure;
use super::login::{self, git_authorization, rest_url};
use super::stop::until_stopped;
use crate::config::Server;
use crate::dial::Destination;
use crate::git::lfs::LfsRemote;
use crate::git::{self, Access, Control, LfsError, Remote};
use crate::policy::{NotDeclared, Refusal};
use crate::provider::Place;
use crate::remote_url::{RemoteUrl, Scheme};

/// The LFS server of a repository. Over HTTPS it is asked as git is; of a repository that git reaches by SSH it is
/// the declared server's, with the credential for its API.
pub(super) async fn remote(
    remote: &Remote,
    place: &Place,
    server: &Server,
    tools: &Tools,
    control: &Control,
) -> Result<LfsRemote, Failure> {
    if let Access::Https { client, authorization } = &remote.access {
        return Ok(LfsRemote::new(&remote.url, &server.url, client.clone(), authorization.clone()));
    }
    let url = beside_ssh(place, server).map_err(Failure::Git)?;
    let admitted = tools.policy.admit(&url).map_err(|refusal| Failure::Target(refusal.into()))?;
    if admitted.name != server.name {
        let host = NotDeclared::Host(url.host().to_owned());
        return Err(Failure::Target(Refusal::NotDeclared(host).into()));
    }
    let credential = login::api_credential(server, tools, control).await?;
    let destination = Destination::for_url(&url, server);
    let client = until_stopped(control, tools.door.client(&destination)).await;
    let client = client.map_err(Failure::Stopped)?.map_err(Failure::Dial)?;
    let authorization = git_authorization(place.provider(), credential.as_ref());
    Ok(LfsRemote::new(&url, &server.url, client, authorization))
}

/// The repository over HTTPS, where the operator declared what that takes.
fn beside_ssh(place: &Place, server: &Server) -> Result<RemoteUrl, git::Error> {
    match (server.url.scheme(), &server.api_credential) {
        (Scheme::Ssh, _) => Err(LfsError::NoHttps.into()),
        (Scheme::Https | Scheme::Http, None) => Err(LfsError::NoCredential.into()),
        (Scheme::Https | Scheme::Http, Some(_)) => Ok(rest_url(place, server)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::provider::Provider;
    use crate::provider::detect::{Known, over_ssh};

    #[test]
    fn of_an_ssh_remote_the_declared_https_is_asked_with_the_apis_credential_or_nobody() {
        let url = |text: &str| RemoteUrl::parse(text).unwrap();
        let ssh = url("ssh://git@gl.corp:2222/shop/web.git");
        let place = over_ssh(Known { url: &ssh, base: None, provider: Some(Provider::Gitlab), scope: None });
        let declared = |base: &str, credential: Option<&str>| {
            let mut server = Server::new("gl", Some(Provider::Gitlab), url(base));
            server.api_credential = credential.map(str::to_owned);
            beside_ssh(&place, &server)
        };
        let found = declared("https://gl.corp/gitlab", Some("gl_pat")).unwrap();
        assert_eq!(found.to_string(), "https://gl.corp/gitlab/shop/web.git");
        let refused = |base, credential| match declared(base, credential) {
            Err(git::Error::Lfs(error)) => *error,
            other => panic!("{other:?}"),
        };
        assert!(matches!(refused("https://gl.corp/gitlab", None), LfsError::NoCredential));
        assert!(matches!(refused("ssh://git@gl.corp:2222", Some("gl_pat")), LfsError::NoHttps));
    }
}
