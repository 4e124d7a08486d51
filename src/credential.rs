//! A credential that has been loaded, ready to be used on one server.

mod store;

pub(crate) use store::read_key_file;
pub use store::{LoadError, Store, load_secret};

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::host_key::Pin;
use crate::secret::{Redaction, Secret};

/// The users beside whom tokens are sent where the operator names none.
const USERS_BESIDE_TOKENS: [&str; 4] = ["", "git", "oauth2", "gitlab-ci-token"];

/// The kinds of credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// An access token, sent by Basic to git and in the provider's own way to its API.
    Pat,
    /// A user name and a password.
    Password,
    /// A token in an `Authorization: Bearer` header.
    Bearer,
    /// A private key for SSH.
    SshKey,
}

impl CredentialKind {
    /// The kind as it stands in configurations and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pat => "pat",
            Self::Password => "password",
            Self::Bearer => "bearer",
            Self::SshKey => "ssh-key",
        }
    }

    /// The kind of that name, as it stands in configurations.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Pat, Self::Password, Self::Bearer, Self::SshKey].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A credential with its secret.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The name that the operator gave it.
    pub name: String,
    /// The user name, where the operator gave one.
    pub username: Option<String>,
    /// The secret, by its kind.
    pub material: Material,
}

/// The secret of a credential.
#[derive(Debug, Clone)]
pub enum Material {
    /// An access token.
    Pat(Secret),
    /// A password.
    Password(Secret),
    /// A bearer token.
    Bearer(Secret),
    /// A private key.
    SshKey {
        /// The key itself, or who signs with it.
        key: PrivateKey,
        /// Where the key came from, for messages: a path, mostly.
        source: String,
    },
}

/// A private key, or who signs with it.
#[derive(Debug, Clone)]
pub enum PrivateKey {
    /// The key.
    Text {
        /// The key file's content.
        text: Secret,
        /// The passphrase, where there is one.
        passphrase: Option<Secret>,
    },
    /// An SSH agent that holds it.
    Agent {
        /// Where the agent listens.
        socket: PathBuf,
        /// Which of its keys; its only one where this is missing.
        named: Option<Pin>,
    },
}

impl Credential {
    /// Its kind.
    pub fn kind(&self) -> CredentialKind {
        match self.material {
            Material::Pat(_) => CredentialKind::Pat,
            Material::Password(_) => CredentialKind::Password,
            Material::Bearer(_) => CredentialKind::Bearer,
            Material::SshKey { .. } => CredentialKind::SshKey,
        }
    }

    /// The value of an `Authorization` header for git over HTTPS; `None` for an SSH key.
    ///
    /// `pat_user` is the user name that the provider wants beside a token where the operator gave none:
    /// empty for Azure DevOps, anything for GitLab.
    pub fn git_authorization(&self, pat_user: &str) -> Option<Secret> {
        let user = self.username.as_deref();
        match &self.material {
            Material::Pat(token) => Some(basic(user.unwrap_or(pat_user), token)),
            Material::Password(password) => Some(basic(user.unwrap_or_default(), password)),
            Material::Bearer(token) => Some(Secret::new(format!("Bearer {}", token.expose()))),
            Material::SshKey { .. } => None,
        }
    }
}

impl Credential {
    /// Tells of the secret, and of the users beside whom it may be sent. A private key is never sent.
    fn teach(&self, redaction: &Redaction) {
        let secret = match &self.material {
            Material::Pat(secret) | Material::Password(secret) | Material::Bearer(secret) => secret,
            Material::SshKey { .. } => return,
        };
        let mut users = USERS_BESIDE_TOKENS.to_vec();
        users.extend(self.username.as_deref());
        redaction.learn(secret, &users);
    }
}

/// The value of an `Authorization` or `Proxy-Authorization` header by the Basic scheme of RFC 7617.
pub fn basic(user: &str, password: &Secret) -> Secret {
    let pair = zeroize::Zeroizing::new(format!("{user}:{}", password.expose()));
    Secret::new(format!("Basic {}", BASE64.encode(pair.as_bytes())))
}
