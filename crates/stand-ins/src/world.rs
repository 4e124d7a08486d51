//! What the stand-ins serve: servers, users, tokens, projects and repositories.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use time::{Date, OffsetDateTime};

use crate::CertificateKind;

mod build;
mod check;

/// Why a world cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The file could not be read.
    #[error("{path} could not be read: {source}")]
    Read {
        /// The file that was named.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The file is not TOML of the known form; the text says line and key.
    #[error("the world is not of the known form: {0}")]
    Form(#[from] toml::de::Error),
    /// A token or repository names a user that no `[[users]]` table declares.
    #[error("{place} names the user \"{user}\"; declare it in a [[users]] table")]
    UnknownUser {
        /// Where the name stands.
        place: String,
        /// The name that is not declared.
        user: String,
    },
    /// A project or repository belongs to a server that is not enabled.
    #[error("{place} belongs to a server that is not enabled; add its table, [azure_devops] or [gitlab]")]
    ServerNotEnabled {
        /// What belongs to it.
        place: String,
    },
    /// A key is missing for this provider.
    #[error("{place} lacks the key \"{key}\"")]
    MissingKey {
        /// What lacks it.
        place: String,
        /// The key that is missing.
        key: &'static str,
    },
    /// The directory of a repository is no bare git repository.
    #[error("{place}: {directory} is no bare git repository; make one with: git init --bare {directory}")]
    NotARepository {
        /// Which repository.
        place: String,
        /// The directory that was named.
        directory: PathBuf,
    },
    /// A base path or relative root that does not look like `/tfs`.
    #[error("{key} = \"{value}\" must be empty or start with \"/\" and not end with one")]
    BasePath {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
}

/// A secret of a test: shown as `***` by `Debug`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Whether `presented` is this secret.
    #[must_use]
    pub fn matches(&self, presented: &str) -> bool {
        !self.0.is_empty() && self.0 == presented
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// Everything that the stand-ins serve. Check it with [`World::check`]; starting does so too.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct World {
    /// The Azure DevOps Server, when there is one.
    pub azure_devops: Option<AzureDevOps>,
    /// The GitLab, when there is one.
    pub gitlab: Option<Gitlab>,
    /// Who may sign in; one list for both servers.
    pub users: Vec<User>,
    /// Their tokens.
    pub tokens: Vec<Token>,
    /// Azure DevOps projects; a project of a declared repository needs no entry.
    pub projects: Vec<Project>,
    /// Repositories of both servers.
    pub repositories: Vec<Repository>,
}

/// An Azure DevOps Server and its settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AzureDevOps {
    /// Below which path the collections live: `/tfs` or empty.
    pub base_path: String,
    /// Which release it is; decides the highest api-version.
    pub release: Release,
    /// How an unknown token is answered.
    pub bad_token: BadToken,
    /// How a known token that lacks a scope is answered by the REST calls and by git.
    pub missing_scope: MissingScope,
    /// Whether JSON bodies of errors start with a UTF-8 byte order mark, as some installations send them.
    pub json_bom: bool,
    /// Whether IIS Basic Authentication is on: passwords work then, and tokens are taken for passwords and refused.
    pub iis_basic_authentication: bool,
    /// The schemes in `WWW-Authenticate`. A Basic header is refused when Basic is not among them.
    pub schemes: Vec<String>,
    /// The message with which an unknown token is refused in JSON, instead of what `bad_token` says.
    pub refusal: Option<String>,
    /// The `errorCode` beside that message.
    pub refusal_code: i64,
    /// Whether `OPTIONS _apis` lists the calls; without, only a refused api-version tells the highest one.
    pub lists_calls: bool,
    /// Whether a root below which the collections do not live leads to where they do.
    pub root_leads_on: bool,
    /// The collection that the host itself stands for, as `org.visualstudio.com` does; paths need not name it.
    pub host_collection: Option<String>,
    /// Who may set the status of commits.
    pub contributors: Vec<String>,
    /// Who may manage service hooks.
    pub hook_managers: Vec<String>,
    /// The URL by which the server names itself, base path included; by default the host that was asked for.
    pub public_url: Option<String>,
    /// The base of the SSH URLs in answers, such as `ssh://127.0.0.1:2222`.
    pub ssh_url: Option<String>,
    /// The condition of its TLS certificate.
    pub certificate: CertificateKind,
    /// The names that a valid certificate is issued for; loopback's where there are none.
    pub certificate_names: Vec<String>,
    /// Whether it speaks plain HTTP instead of TLS.
    pub plain_http: bool,
}

impl Default for AzureDevOps {
    fn default() -> Self {
        Self {
            base_path: String::new(),
            release: Release::V2022,
            bad_token: BadToken::Empty401,
            missing_scope: MissingScope::Empty401,
            json_bom: false,
            iis_basic_authentication: false,
            schemes: ["Bearer", "Basic", "Negotiate", "NTLM"].map(str::to_owned).to_vec(),
            refusal: None,
            refusal_code: 0,
            lists_calls: true,
            root_leads_on: true,
            host_collection: None,
            contributors: Vec::new(),
            hook_managers: Vec::new(),
            public_url: None,
            ssh_url: None,
            certificate: CertificateKind::Valid,
            certificate_names: Vec::new(),
            plain_http: false,
        }
    }
}

/// A release of Azure DevOps Server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Release {
    /// Team Foundation Server 2015, api-version 2.0.
    #[serde(rename = "tfs-2015")]
    Tfs2015,
    /// Team Foundation Server 2017, api-version 3.0.
    #[serde(rename = "tfs-2017")]
    Tfs2017,
    /// Team Foundation Server 2018, api-version 4.1.
    #[serde(rename = "tfs-2018")]
    Tfs2018,
    /// Server 2019, api-version 5.0.
    #[serde(rename = "2019")]
    V2019,
    /// Server 2019.1, api-version 5.1.
    #[serde(rename = "2019.1")]
    V2019Update1,
    /// Server 2020, api-version 6.0, and 6.1 in preview.
    #[serde(rename = "2020")]
    V2020,
    /// Server 2022, api-version 7.0.
    #[serde(rename = "2022")]
    V2022,
    /// Server 2022.1, api-version 7.1.
    #[serde(rename = "2022.1")]
    V2022Update1,
    /// Server 2022.2, api-version 7.2.
    #[serde(rename = "2022.2")]
    V2022Update2,
    /// The cloud edition, api-version 7.1, and 7.2 in preview.
    #[serde(rename = "services")]
    Services,
}

impl Release {
    /// The highest api-version that has left its preview, as (major, minor).
    #[must_use]
    pub fn api_version(self) -> (u32, u32) {
        match self {
            Self::Tfs2015 => (2, 0),
            Self::Tfs2017 => (3, 0),
            Self::Tfs2018 => (4, 1),
            Self::V2019 => (5, 0),
            Self::V2019Update1 => (5, 1),
            Self::V2020 => (6, 0),
            Self::V2022 => (7, 0),
            Self::V2022Update1 | Self::Services => (7, 1),
            Self::V2022Update2 => (7, 2),
        }
    }

    /// The highest api-version, previews included.
    #[must_use]
    pub fn highest_version(self) -> (u32, u32) {
        match self {
            Self::V2020 => (6, 1),
            Self::Services => (7, 2),
            released => released.api_version(),
        }
    }
}

/// How Azure DevOps answers a token that it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BadToken {
    /// 401 without a body, as on-prem.
    #[serde(rename = "empty-401")]
    Empty401,
    /// 203 with the HTML of a sign-in page, as the cloud edition.
    SignInPage,
    /// 302 to `_signin`, as some set-ups.
    Redirect,
}

/// How Azure DevOps answers a token that lacks a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum MissingScope {
    /// 401 without a body: indistinguishable from an expired token.
    #[serde(rename = "empty-401")]
    Empty401,
    /// 403 with a JSON body.
    #[serde(rename = "json-403")]
    Json403,
}

/// A GitLab and its settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gitlab {
    /// The relative path it lives under: `/gitlab` or empty.
    pub relative_root: String,
    /// Its version, such as `16.11.2`; decides which calls exist. By default one that is maintained today.
    pub version: String,
    /// Whether it is the Enterprise Edition.
    pub enterprise: bool,
    /// Whether git says of a password that was right that a token is needed; newer releases have one message
    /// for everything.
    pub explains_passwords: bool,
    /// The URL by which the server names itself; by default the host that was asked for.
    pub public_url: Option<String>,
    /// The base of the SSH URLs in answers, such as `ssh://git@127.0.0.1:2222`.
    pub ssh_url: Option<String>,
    /// Whether a proxy in front decodes `%2F`, so that encoded project paths are not found.
    pub decodes_slashes: bool,
    /// What `RateLimit-Limit` says; only a fault ever enforces it.
    pub rate_limit: u32,
    /// The condition of its TLS certificate.
    pub certificate: CertificateKind,
    /// Whether it speaks plain HTTP instead of TLS.
    pub plain_http: bool,
}

impl Default for Gitlab {
    fn default() -> Self {
        Self {
            relative_root: String::new(),
            version: maintained_version(),
            enterprise: false,
            explains_passwords: true,
            public_url: None,
            ssh_url: None,
            decodes_slashes: false,
            rate_limit: 2000,
            certificate: CertificateKind::Valid,
            plain_http: false,
        }
    }
}

/// A release of some weeks ago: a minor one comes out every month, and the first of a major one in each May, of
/// which that of 2025 was 18.0.
fn maintained_version() -> String {
    let then = OffsetDateTime::now_utc().date() - time::Duration::days(40);
    let month = i32::from(u8::from(then.month()));
    let (year, minor) = if month >= 5 { (then.year(), month - 5) } else { (then.year() - 1, month + 7) };
    format!("{}.{minor}.1", year - 2007)
}

/// Somebody who may sign in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The name to sign in with.
    pub name: String,
    /// The password; without one the user has only tokens.
    pub password: Option<Secret>,
    /// Whether two-factor authentication is on: the password is refused by git then.
    #[serde(default)]
    pub two_factor: bool,
}

/// What kind of token it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenKind {
    /// A personal access token.
    #[default]
    Pat,
    /// A GitLab project access token: answers as a bot user.
    Project,
    /// A GitLab group access token: answers as a bot user, too.
    Group,
    /// The token of a GitLab CI job: git only here.
    Job,
    /// A GitLab deploy token: git only, never the API.
    Deploy,
    /// An OAuth or Entra access token: `Authorization: Bearer`.
    Oauth,
}

/// A token of a user.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Whose it is.
    pub user: String,
    /// The token itself.
    pub secret: Secret,
    /// The provider's own names: `vso.code`, `read_repository`, ….
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The day on which it expires (UTC), as `2027-01-01`; a past one makes an expired token.
    #[serde(default, deserialize_with = "check::day")]
    pub expires_at: Option<Date>,
    /// Whether it was revoked.
    #[serde(default)]
    pub revoked: bool,
    /// What kind it is.
    #[serde(default)]
    pub kind: TokenKind,
}

impl Token {
    /// Whether its day has come.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.expires_at.is_some_and(|day| day <= OffsetDateTime::now_utc().date())
    }
}

/// Which server something belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// Azure DevOps Server.
    #[serde(rename = "azure-devops")]
    AzureDevOps,
    /// GitLab.
    Gitlab,
}

/// An Azure DevOps project.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// Always [`Provider::AzureDevOps`]; GitLab's groups follow from the paths of its repositories.
    pub provider: Provider,
    /// The collection it is in.
    pub collection: String,
    /// Its name.
    pub name: String,
}

/// The access level of a developer of GitLab's.
fn developer() -> u32 {
    30
}

/// A git repository that a server shows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// Which server shows it.
    pub provider: Provider,
    /// Azure DevOps: the collection.
    #[serde(default)]
    pub collection: String,
    /// Azure DevOps: the project.
    #[serde(default)]
    pub project: String,
    /// GitLab: the full path, such as `group/sub/web`.
    #[serde(default)]
    pub path: String,
    /// The name; for GitLab it may be left out and is the path's last part then.
    #[serde(default)]
    pub name: String,
    /// The bare repository on disk.
    pub directory: PathBuf,
    /// Who may read it.
    #[serde(default)]
    pub readers: Vec<String>,
    /// Whether it is disabled: it is named in answers and not served.
    #[serde(default)]
    pub disabled: bool,
    /// GitLab: paths from which it was moved here; they redirect.
    #[serde(default)]
    pub former_paths: Vec<String>,
    /// GitLab: whether it is archived, which leaves it readable.
    #[serde(default)]
    pub archived: bool,
    /// GitLab: the access level of its readers: 20 reporter, 30 developer, 40 maintainer; 0 is not told.
    #[serde(default = "developer")]
    pub access_level: u32,
}

impl World {
    /// Reads and checks a world from a TOML file.
    ///
    /// # Errors
    /// Any [`WorldError`].
    pub fn load(path: &Path) -> Result<Self, WorldError> {
        let text =
            fs::read_to_string(path).map_err(|source| WorldError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Reads and checks a world from TOML.
    ///
    /// ```
    /// let world = stand_ins::World::parse(
    ///     r#"
    ///     [azure_devops]
    ///     base_path = "/tfs"
    ///     release = "2022.1"
    ///     bad_token = "sign-in-page"
    ///     [[users]]
    ///     name = "ada"
    ///     [[tokens]]
    ///     user = "ada"
    ///     secret = "only-for-tests"
    ///     scopes = ["vso.code", "vso.project"]
    ///     expires_at = "2030-01-01"
    ///     [[projects]]
    ///     provider = "azure-devops"
    ///     collection = "DefaultCollection"
    ///     name = "Shop"
    ///     "#,
    /// )?;
    /// assert!(world.azure_devops.is_some() && world.gitlab.is_none());
    /// # Ok::<(), stand_ins::WorldError>(())
    /// ```
    ///
    /// # Errors
    /// Any [`WorldError`] but [`WorldError::Read`].
    pub fn parse(text: &str) -> Result<Self, WorldError> {
        let mut world = toml::from_str::<Self>(text)?;
        world.check()?;
        Ok(world)
    }
}
