//! Checks a world before anything listens, so that a mistake in it is named instead of looking like a refusal.

use serde::{Deserialize as _, Deserializer};
use time::Date;
use time::format_description::well_known::Iso8601;

use super::{Provider, Repository, World, WorldError};

impl World {
    /// Checks the world and completes what follows from the rest (a GitLab repository's name).
    ///
    /// # Errors
    /// The first [`WorldError`] that is found.
    pub fn check(&mut self) -> Result<(), WorldError> {
        if let Some(azure) = &self.azure_devops {
            check_base_path("azure_devops.base_path", &azure.base_path)?;
        }
        if let Some(gitlab) = &self.gitlab {
            check_base_path("gitlab.relative_root", &gitlab.relative_root)?;
        }
        for (position, token) in self.tokens.iter().enumerate() {
            self.check_user(&token.user, || format!("token {}", position + 1))?;
        }
        for project in &self.projects {
            self.check_enabled(project.provider, || format!("the project \"{}\"", project.name))?;
        }
        for repository in &self.repositories {
            self.check_repository(repository)?;
        }
        for repository in &mut self.repositories {
            if repository.name.is_empty() {
                repository.name = repository.path.rsplit('/').next().unwrap_or_default().to_owned();
            }
        }
        Ok(())
    }

    fn check_repository(&self, repository: &Repository) -> Result<(), WorldError> {
        let place = || {
            let name = if repository.name.is_empty() { &repository.path } else { &repository.name };
            format!("the repository \"{name}\"")
        };
        self.check_enabled(repository.provider, place)?;
        let needed: &[(&'static str, &String)] = match repository.provider {
            Provider::AzureDevOps => &[
                ("collection", &repository.collection),
                ("project", &repository.project),
                ("name", &repository.name),
            ],
            Provider::Gitlab => &[("path", &repository.path)],
        };
        if let Some((key, _)) = needed.iter().find(|(_, value)| value.is_empty()) {
            return Err(WorldError::MissingKey { place: place(), key });
        }
        if !repository.directory.join("HEAD").is_file() || !repository.directory.join("objects").is_dir() {
            return Err(WorldError::NotARepository {
                place: place(),
                directory: repository.directory.clone(),
            });
        }
        for reader in &repository.readers {
            self.check_user(reader, place)?;
        }
        Ok(())
    }

    fn check_user(&self, name: &str, place: impl FnOnce() -> String) -> Result<(), WorldError> {
        if self.users.iter().any(|user| user.name == name) {
            return Ok(());
        }
        Err(WorldError::UnknownUser { place: place(), user: name.to_owned() })
    }

    fn check_enabled(&self, provider: Provider, place: impl FnOnce() -> String) -> Result<(), WorldError> {
        let enabled = match provider {
            Provider::AzureDevOps => self.azure_devops.is_some(),
            Provider::Gitlab => self.gitlab.is_some(),
        };
        if enabled { Ok(()) } else { Err(WorldError::ServerNotEnabled { place: place() }) }
    }
}

fn check_base_path(key: &'static str, value: &str) -> Result<(), WorldError> {
    if value.is_empty() || (value.starts_with('/') && !value.ends_with('/')) {
        return Ok(());
    }
    Err(WorldError::BasePath { key, value: value.to_owned() })
}

/// Reads a day such as `2027-01-01`.
pub(super) fn day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Date>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Date::parse(&text, &Iso8601::DATE)
        .map(Some)
        .map_err(|_| serde::de::Error::custom("expires_at must be a day such as \"2027-01-01\""))
}
