//! Which kind of server a URL leads to, found without a credential and with at most two requests.
//!
//! What the URL's own form says costs nothing and comes first. Whoever asks records the stage `identify`.

use super::rest::{Answer, Api};
use super::{Place, Provider, ProviderError, Scope, azure_devops, gitlab};
use crate::remote_url::{RemoteUrl, Scheme};

/// What is known about a target before anything is asked.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Where it is.
    pub url: &'a RemoteUrl,
    /// The URL that the operator declared for the server, where there is one.
    pub base: Option<&'a RemoteUrl>,
    /// The kind of server, where operator or task name it.
    pub provider: Option<Provider>,
    /// What the target is, where the task says so.
    pub scope: Option<Scope>,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Identified {
    /// What the URL means there.
    pub place: Place,
    /// The schemes that the server offers to those who did not sign in, where it told.
    pub schemes: Vec<String>,
    /// What an Azure DevOps showed to somebody without a credential.
    pub greeting: azure_devops::Greeting,
}

impl Identified {
    fn without_greeting(place: Place, schemes: Vec<String>) -> Self {
        Self { place, schemes, greeting: azure_devops::Greeting::default() }
    }

    fn azure(place: azure_devops::Place, greeting: azure_devops::Greeting) -> Self {
        Self { place: Place::AzureDevops(place), schemes: greeting.schemes.clone(), greeting }
    }
}

/// The kind of server by what the URL alone shows; `None` where only asking helps.
pub fn by_shape(url: &RemoteUrl) -> Option<Provider> {
    if azure_devops::looks_like(url) {
        return Some(Provider::AzureDevops);
    }
    gitlab::is_cloud_host(url.host()).then_some(Provider::Gitlab)
}

/// What an SSH URL means; the API is not asked, so that nothing but its form counts.
pub fn over_ssh(known: Known<'_>) -> Place {
    let provider = known.provider.or_else(|| by_shape(known.url));
    let git = || Place::Git(known.url.clone());
    match provider {
        Some(Provider::AzureDevops) => Place::AzureDevops(azure_place(known)),
        Some(Provider::Gitlab) => {
            gitlab::Place::parse(known.url, "", known.scope).map_or_else(git, Place::Gitlab)
        }
        Some(Provider::Git) | None => git(),
    }
}

/// Asks the server, without a credential, what it is.
///
/// # Errors
/// [`ProviderError::NotThisServer`] and [`ProviderError::WrongBasePath`] where the operator or the task name
/// a kind of server that does not answer there, and what any call can fail with.
pub async fn identify(anonymous: &Api, known: Known<'_>) -> Result<Identified, ProviderError> {
    match known.provider.or_else(|| by_shape(known.url)) {
        Some(Provider::AzureDevops) => identify_azure(anonymous, known).await,
        Some(Provider::Gitlab) => identify_gitlab(anonymous, known, None).await,
        Some(Provider::Git) => Ok(Identified::without_greeting(Place::Git(known.url.clone()), Vec::new())),
        None => identify_unknown(anonymous, known).await,
    }
}

async fn identify_azure(anonymous: &Api, known: Known<'_>) -> Result<Identified, ProviderError> {
    let place = azure_place(known);
    match azure_devops::identify(anonymous, &place).await {
        Ok(greeting) => Ok(Identified::azure(place, greeting)),
        Err(error @ ProviderError::NotThisServer { .. }) => {
            // The root of an upgraded server leads to its virtual directory.
            match own_root(anonymous, known.url).await? {
                Some(root) if !root.is_empty() && !is_below(known.url, &root) => {
                    Err(ProviderError::WrongBasePath { asked: known.url.path().to_owned(), answered: root })
                }
                _ if is_below(known.url, azure_devops::OLD_VIRTUAL_DIRECTORY) => Err(error),
                // A root that leads nowhere: the directory that servers have mostly is asked for itself.
                _ => match azure_devops::identify_directory(anonymous).await? {
                    Some(_) => Err(ProviderError::WrongBasePath {
                        asked: known.url.path().to_owned(),
                        answered: azure_devops::OLD_VIRTUAL_DIRECTORY.to_owned(),
                    }),
                    None => Err(error),
                },
            }
        }
        Err(error) => Err(error),
    }
}

/// `first` is an answer to `api/v4/version` at the host's own root, where that was asked already.
async fn identify_gitlab(
    anonymous: &Api,
    known: Known<'_>,
    first: Option<Answer>,
) -> Result<Identified, ProviderError> {
    let base = known.base.map_or("", RemoteUrl::path);
    let answer = match first {
        Some(answer) => answer,
        None => anonymous.get(&format!("{base}/api/v4/version")).await?,
    };
    let found = |root: &str| {
        let place = gitlab::Place::parse(known.url, root, known.scope)?;
        Some(Identified::without_greeting(Place::Gitlab(place), answer.schemes()))
    };
    let wrong_base = |root: &str| ProviderError::WrongBasePath {
        asked: known.url.path().to_owned(),
        answered: if root.is_empty() { "/".to_owned() } else { root.to_owned() },
    };
    if is_gitlab_api(&answer) {
        return found(base).ok_or_else(|| wrong_base(base));
    }
    let leads_away = answer.location().is_some() && answer.local_redirect(&known.url.origin()).is_none();
    if leads_away || matches!(answer.status, 429 | 500..) {
        return Err(answer.general_error("GitLab's API"));
    }
    match own_root(anonymous, known.url).await? {
        Some(root) => {
            let root = gitlab_root(&root);
            found(&root).ok_or_else(|| wrong_base(&root))
        }
        None if gitlab::shows_marks(&answer) => found("").ok_or_else(|| wrong_base("")),
        None if answer.status == 200 => Err(answer.unexpected("GitLab's API")),
        None => Err(ProviderError::NotThisServer {
            expected: Provider::Gitlab,
            path: answer.path.clone(),
            status: answer.status,
        }),
    }
}

async fn identify_unknown(anonymous: &Api, known: Known<'_>) -> Result<Identified, ProviderError> {
    let answer = anonymous.get("/api/v4/version").await?;
    if azure_devops::shows_marks(&answer) {
        return Ok(Identified::azure(azure_place(known), azure_devops::Greeting::of(&answer)));
    }
    if is_gitlab_api(&answer) || gitlab::shows_marks(&answer) {
        return identify_gitlab(anonymous, Known { base: None, ..known }, Some(answer)).await;
    }
    if answer.status == 429 {
        return Err(answer.general_error("GitLab's API"));
    }
    if is_below(known.url, azure_devops::OLD_VIRTUAL_DIRECTORY) {
        return Ok(match azure_devops::identify_directory(anonymous).await? {
            Some(greeting) => Identified::azure(azure_place(known), greeting),
            None => Identified::without_greeting(Place::Git(known.url.clone()), answer.schemes()),
        });
    }
    let at_root = anonymous.get("/").await?;
    let schemes = match answer.schemes() {
        none if none.is_empty() => at_root.schemes(),
        schemes => schemes,
    };
    let root = at_root.local_redirect(&known.url.origin());
    if let Some(root) = root.as_deref().filter(|root| is_old_directory(root)) {
        let (asked, answered) = (known.url.path().to_owned(), root.to_owned());
        return Err(ProviderError::WrongBasePath { asked, answered });
    }
    // GitLab below a relative root: the host's root leads to it, and nothing else of it shows from here.
    if let Some(root) = root
        && root.ends_with("/users/sign_in")
        && let Some(place) = gitlab::Place::parse(known.url, &gitlab_root(&root), known.scope)
    {
        return Ok(Identified::without_greeting(Place::Gitlab(place), schemes));
    }
    Ok(Identified::without_greeting(Place::Git(known.url.clone()), schemes))
}

/// Where the host's root leads, if that is on the same origin.
async fn own_root(anonymous: &Api, url: &RemoteUrl) -> Result<Option<String>, ProviderError> {
    let answer = anonymous.get("/").await?;
    Ok(answer.local_redirect(&url.origin()))
}

/// GitLab's API answers everything in JSON: the version to those who are signed in, else a message.
fn is_gitlab_api(answer: &Answer) -> bool {
    match answer.status {
        200 => answer.field("version").is_some() && answer.field("revision").is_some(),
        401 => answer.field("message").is_some() && !azure_devops::shows_marks(answer),
        403 => answer.field("message").is_some() && gitlab::shows_marks(answer),
        _ => false,
    }
}

fn azure_place(known: Known<'_>) -> azure_devops::Place {
    azure_devops::Place::parse(known.url, known.base, known.scope)
}

fn gitlab_root(redirect: &str) -> String {
    gitlab::root_of(redirect)
}

fn is_old_directory(path: &str) -> bool {
    path.eq_ignore_ascii_case(azure_devops::OLD_VIRTUAL_DIRECTORY)
}

fn is_below(url: &RemoteUrl, root: &str) -> bool {
    debug_assert!(url.scheme() != Scheme::Ssh, "an SSH URL has no root to lead anywhere");
    let (path, root) = (url.path().to_ascii_lowercase(), root.to_ascii_lowercase());
    path.strip_prefix(&root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::provider::rest::tests::answer;

    fn url(text: &str) -> RemoteUrl {
        RemoteUrl::parse(text).unwrap()
    }

    #[test]
    fn shapes_are_seen_without_asking() {
        let shape = |text: &str| by_shape(&url(text));
        assert_eq!(shape("https://ado.corp/Coll/Shop/_git/web"), Some(Provider::AzureDevops));
        assert_eq!(shape("https://org.visualstudio.com/Shop"), Some(Provider::AzureDevops));
        assert_eq!(shape("https://gitlab.com/group/web"), Some(Provider::Gitlab));
        assert_eq!(shape("https://git.corp/group/web"), None);
    }

    #[test]
    fn gitlab_is_known_by_its_api() {
        let json = [("content-type", "application/json")];
        assert!(is_gitlab_api(&answer(401, &json, r#"{"message":"401 Unauthorized"}"#)));
        assert!(!is_gitlab_api(&answer(401, &[], "")));
        assert!(!is_gitlab_api(&answer(404, &json, r#"{"message":"404"}"#)));
    }

    #[test]
    fn a_base_is_compared_by_whole_segments_and_without_case() {
        assert!(is_below(&url("https://h/tfs/Coll"), "/TFS"));
        assert!(!is_below(&url("https://h/tfsx/Coll"), "/tfs"));
    }
}
