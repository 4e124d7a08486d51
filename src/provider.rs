//! The kinds of git servers: the grammar of their URLs, the calls to their APIs, what their answers mean.
//!
//! Reading order: [`Place`] (what a URL means), [`rest`] (one bounded call), [`azure_devops`] and [`gitlab`]
//! (the calls of each, and how each says no), [`detect`] (which of them it is, found without a credential).

pub mod azure_devops;
pub mod contents;
pub mod detect;
mod error;
pub mod gitlab;
pub mod near;
pub mod rest;

pub use error::{Denied, ProviderError};

use crate::remote_url::{RemoteUrl, Scheme};

/// The kind of a git server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// Azure DevOps Server or Azure DevOps Services.
    AzureDevops,
    /// GitLab, self-managed or gitlab.com.
    Gitlab,
    /// A git server without an API.
    Git,
}

impl Provider {
    /// The name that a person types.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AzureDevops => "azure-devops",
            Self::Gitlab => "gitlab",
            Self::Git => "git",
        }
    }

    /// The name of the product, for people.
    pub fn product(self) -> &'static str {
        match self {
            Self::AzureDevops => "Azure DevOps",
            Self::Gitlab => "GitLab",
            Self::Git => "a plain git server",
        }
    }

    /// The user name that the server wants beside an access token where the operator gave none.
    pub fn token_user(self) -> &'static str {
        match self {
            // Azure DevOps looks at the token alone, and an empty name is the documented form of it.
            Self::AzureDevops | Self::Git => "",
            // Any name will do, but an empty one is refused.
            Self::Gitlab => "git",
        }
    }
}

/// What a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// An organization, a collection, GitLab's root or a group.
    Account,
    /// A project of Azure DevOps.
    Project,
    /// A repository.
    Repository,
}

/// What a URL means to one provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A place on Azure DevOps.
    AzureDevops(azure_devops::Place),
    /// A place on GitLab.
    Gitlab(gitlab::Place),
    /// A repository on a server without an API: the URL is all that there is to know.
    Git(RemoteUrl),
}

impl Place {
    /// Whose place it is.
    pub fn provider(&self) -> Provider {
        match self {
            Self::AzureDevops(_) => Provider::AzureDevops,
            Self::Gitlab(_) => Provider::Gitlab,
            Self::Git(_) => Provider::Git,
        }
    }

    /// What kind of place it is.
    pub fn scope(&self) -> Scope {
        match self {
            Self::AzureDevops(place) => place.scope(),
            Self::Gitlab(place) => place.scope(),
            Self::Git(_) => Scope::Repository,
        }
    }

    /// The place by HTTPS, whatever the scheme of the URL that it was read from.
    pub fn canonical_https(&self) -> RemoteUrl {
        match self {
            Self::AzureDevops(place) => place.canonical_https(),
            Self::Gitlab(place) => place.canonical_https(),
            Self::Git(url) => RemoteUrl::at_host(Scheme::Https, url.host()).with_path(url.path()),
        }
    }

    /// The URL that git uses; `None` where the place is no repository.
    pub fn git_url(&self) -> Option<RemoteUrl> {
        match self {
            Self::AzureDevops(place) => place.git_url(),
            Self::Gitlab(place) => place.git_url(),
            Self::Git(url) => Some(url.clone()),
        }
    }
}
