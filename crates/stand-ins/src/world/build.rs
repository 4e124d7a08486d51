//! Builds a world in Rust, one line a thing, for tests.

use std::path::Path;

use time::{Duration, OffsetDateTime};

use super::{AzureDevOps, Gitlab, Project, Provider, Repository, Secret, Token, TokenKind, User, World};

impl World {
    /// A world with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an Azure DevOps Server with these settings.
    #[must_use]
    pub fn with_azure_devops(mut self, settings: AzureDevOps) -> Self {
        self.azure_devops = Some(settings);
        self
    }

    /// Adds a GitLab with these settings.
    #[must_use]
    pub fn with_gitlab(mut self, settings: Gitlab) -> Self {
        self.gitlab = Some(settings);
        self
    }

    /// Adds a user with a password.
    #[must_use]
    pub fn with_user(mut self, name: &str, password: &str) -> Self {
        self.users.push(User {
            name: name.to_owned(),
            password: Some(Secret::from(password)),
            two_factor: false,
        });
        self
    }

    /// Adds a personal access token that lives for another year.
    #[must_use]
    pub fn with_pat(self, user: &str, secret: &str, scopes: &[&str]) -> Self {
        self.with_token(Token::new(user, secret, scopes))
    }

    /// Adds a token of any kind.
    #[must_use]
    pub fn with_token(mut self, token: Token) -> Self {
        self.tokens.push(token);
        self
    }

    /// Adds an Azure DevOps project that has no repository of its own here.
    #[must_use]
    pub fn with_azure_project(mut self, collection: &str, name: &str) -> Self {
        self.projects.push(Project {
            provider: Provider::AzureDevOps,
            collection: collection.to_owned(),
            name: name.to_owned(),
        });
        self
    }

    /// Adds a repository of either server.
    #[must_use]
    pub fn with_repository(mut self, repository: Repository) -> Self {
        self.repositories.push(repository);
        self
    }
}

impl Token {
    /// A personal access token that lives for another year.
    #[must_use]
    pub fn new(user: &str, secret: &str, scopes: &[&str]) -> Self {
        Self {
            user: user.to_owned(),
            secret: Secret::from(secret),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            expires_at: Some(OffsetDateTime::now_utc().date() + Duration::days(365)),
            revoked: false,
            kind: TokenKind::Pat,
        }
    }

    /// The same token as another kind.
    #[must_use]
    pub fn of_kind(mut self, kind: TokenKind) -> Self {
        self.kind = kind;
        self
    }

    /// The same token with its day in the past.
    #[must_use]
    pub fn expired(mut self) -> Self {
        self.expires_at = Some(OffsetDateTime::now_utc().date() - Duration::days(1));
        self
    }

    /// The same token with so many days to go.
    #[must_use]
    pub fn expires_in_days(mut self, days: i64) -> Self {
        self.expires_at = Some(OffsetDateTime::now_utc().date() + Duration::days(days));
        self
    }

    /// The same token, revoked.
    #[must_use]
    pub fn revoked(mut self) -> Self {
        self.revoked = true;
        self
    }
}

impl Repository {
    /// An Azure DevOps repository over the bare repository in `directory`.
    #[must_use]
    pub fn azure_devops(collection: &str, project: &str, name: &str, directory: &Path) -> Self {
        Self {
            provider: Provider::AzureDevOps,
            collection: collection.to_owned(),
            project: project.to_owned(),
            path: String::new(),
            name: name.to_owned(),
            directory: directory.to_owned(),
            readers: Vec::new(),
            disabled: false,
            former_paths: Vec::new(),
            archived: false,
            access_level: 30,
        }
    }

    /// A GitLab project over the bare repository in `directory`; `path` is its full path, `group/sub/web`.
    #[must_use]
    pub fn gitlab(path: &str, directory: &Path) -> Self {
        let name = path.rsplit('/').next().unwrap_or_default();
        Self {
            provider: Provider::Gitlab,
            path: path.to_owned(),
            ..Self::azure_devops("", "", name, directory)
        }
    }

    /// The same repository, readable by this user too.
    #[must_use]
    pub fn read_by(mut self, user: &str) -> Self {
        self.readers.push(user.to_owned());
        self
    }

    /// The same repository, disabled.
    #[must_use]
    pub fn disabled(mut self) -> Self {
        self.disabled = true;
        self
    }

    /// The same repository, archived.
    #[must_use]
    pub fn archived(mut self) -> Self {
        self.archived = true;
        self
    }

    /// The same repository with readers of this access level.
    #[must_use]
    pub fn at_access_level(mut self, access_level: u32) -> Self {
        self.access_level = access_level;
        self
    }

    /// The same repository, also known by a path from which it was moved.
    #[must_use]
    pub fn moved_from(mut self, path: &str) -> Self {
        self.former_paths.push(path.to_owned());
        self
    }
}
