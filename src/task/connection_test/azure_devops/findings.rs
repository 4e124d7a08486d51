//! What the answers of Azure DevOps mean for the report: facts, capabilities, warnings.

use std::time::Duration;

use time::{Date, OffsetDateTime};

use super::{Asked, SignedIn};
use crate::provider::azure_devops::{
    self, OwnUrls, Place, Project, Release, Repository, SUPPORT_WARNING_DAYS,
};
use crate::provider::near::near;
use crate::provider::{Place as AnyPlace, ProviderError};
use crate::report::{Code, Stage};
use crate::task::connection_test::{Capability, RepositoryFacts, Test};
use crate::task::diagnose::Failure;
use crate::task::stop::within_step;

/// How long a list of names may take that only a remedy is made of.
const NAMES_LIMIT: Duration = Duration::from_secs(5);

impl Test<'_> {
    /// Notes what the server told about a path that it does not have.
    pub(super) fn azure_failure(&self, error: ProviderError) -> Failure {
        if let ProviderError::CollectionUnknown { right, known, .. } = &error {
            self.log.fact_at(Stage::Identify, "collections", known.clone());
            if let Some(right) = right {
                self.log.fact_at(Stage::Identify, "right_path", right.clone());
            }
        }
        Failure::Provider(error)
    }

    pub(super) fn take_azure_release(&mut self, release: &Release) {
        let api_version = release.api_version();
        self.log.fact_at(Stage::Identify, "product", release.product);
        if let Some(version) = &api_version {
            self.log.fact_at(Stage::Identify, "api_version", version.clone());
        }
        self.report.server.product = Some(release.product.to_owned());
        self.report.server.version = release.release.map(str::to_owned);
        self.report.server.api_version = api_version;
        if let Some(seen) = end_of_support(release, OffsetDateTime::now_utc().date()) {
            self.warn(Code::ServerReleaseEnds, Stage::Identify, &seen, vec![]);
        }
    }

    pub(super) async fn take_azure_project(
        &mut self,
        server: &SignedIn,
        place: &Place,
        project: Asked<Project>,
        own_urls: &mut OwnUrls,
    ) -> Result<(), Failure> {
        self.note_evidence(Stage::Authorize, &project.trace, project.answer.is_err());
        self.report.capabilities.read_projects = match &project.answer {
            Ok(_) => Capability::Yes,
            Err(ProviderError::Forbidden { .. }) => Capability::No,
            Err(_) => Capability::Unknown,
        };
        let answer = match project.answer {
            Err(ProviderError::ProjectHidden { name, .. }) => {
                let names = azure_devops::project_names(&server.api, place, &server.release);
                let at = |project: &str| place.with_repository(project, project);
                let near = self.near_names(Stage::Authorize, &name, names, at).await?;
                Err(ProviderError::ProjectHidden { name, near })
            }
            Err(error @ ProviderError::CollectionUnknown { .. }) => return Err(self.azure_failure(error)),
            answer => answer,
        };
        let call = match place.project() {
            Some(_) => "the project's entry",
            None => "the list of projects",
        };
        if let Some(project) = self.note_refusal(Stage::Authorize, call, answer)? {
            own_urls.add_links(project.links);
        }
        Ok(())
    }

    pub(super) async fn take_azure_repository(
        &mut self,
        server: &SignedIn,
        place: &Place,
        repository: Asked<Repository>,
        own_urls: &mut OwnUrls,
    ) -> Result<Option<Repository>, Failure> {
        self.log.begin(Stage::Repository);
        self.note_evidence(Stage::Repository, &repository.trace, repository.answer.is_err());
        let answer = match repository.answer {
            Err(ProviderError::RepositoryHidden { name, .. }) => {
                let names = azure_devops::repository_names(&server.api, place, &server.release);
                let at = |repository: &str| place.in_its_project(repository);
                let near = self.near_names(Stage::Repository, &name, names, at).await?;
                Err(ProviderError::RepositoryHidden { name, near })
            }
            answer => answer,
        };
        let found = self.note_refusal(Stage::Repository, "the repository's entry", answer)?;
        if let Some(repository) = &found {
            self.log.fact("repository", place.names());
            own_urls.add_links(repository.links.clone());
            self.report.capabilities.read_code = Capability::Yes;
            let branch = repository.default_branch.as_deref();
            let branch = branch.map(|name| name.strip_prefix("refs/heads/").unwrap_or(name).to_owned());
            self.report.repository =
                Some(RepositoryFacts { default_branch: branch, head: None, references: None });
        }
        Ok(found)
    }

    /// Looks for names that are like one that is not there, for the remedy.
    async fn near_names(
        &self,
        stage: Stage,
        wanted: &str,
        names: impl Future<Output = Vec<String>>,
        place_of: impl Fn(&str) -> Place,
    ) -> Result<Vec<String>, Failure> {
        let names = tokio::time::timeout(NAMES_LIMIT, names);
        let names = within_step(self.control, names).await.map_err(Failure::Stopped)?;
        let mut near = near(wanted, &names.unwrap_or_default());
        // A token sees more than whoever set the task may hear of.
        near.retain(|name| self.admitted_url(&AnyPlace::AzureDevops(place_of(name))).is_ok());
        if !near.is_empty() {
            self.log.fact_at(stage, "near", near.clone());
        }
        Ok(near)
    }

    /// A public URL that was never set up, or that is another's, makes the links that the server hands out
    /// lead nowhere.
    pub(super) fn warn_about_own_urls(&mut self, own_urls: &OwnUrls) {
        let Some(url) = own_urls.astray(&self.subject.host) else { return };
        let seen = format!("it was asked as {} and names itself {url}", self.subject.host);
        self.warn(Code::PublicUrlIsLocalhost, Stage::Identify, &seen, vec![]);
    }
}

/// What there is to say of the end of a release's support, once it is near.
fn end_of_support(release: &Release, today: Date) -> Option<String> {
    let (mainstream, extended) = (release.mainstream_support_ends()?, release.extended_support_ends()?);
    let name = format!("{} {}", release.product, release.release?);
    if (mainstream - today).whole_days() > SUPPORT_WARNING_DAYS {
        return None;
    }
    let ends = |day: Date| if day < today { "ended" } else { "ends" };
    Some(format!(
        "mainstream support of {name} {} on {mainstream}, and security fixes {} on {extended}",
        ends(mainstream),
        match extended < today {
            true => "ended",
            false => "end",
        },
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use time::Month;

    use super::*;

    #[test]
    fn a_release_is_warned_about_from_half_a_year_before_its_end() {
        let release = Release::for_tests((7, 0));
        let day = |year, month, day| Date::from_calendar_date(year, month, day).unwrap();
        assert_eq!(end_of_support(&release, day(2027, Month::July, 14)), None);
        let near = end_of_support(&release, day(2027, Month::July, 16)).unwrap();
        assert!(near.contains("2022 ends on 2028-01-11") && near.contains("end on 2033-01-11"), "{near}");
        let late = end_of_support(&release, day(2033, Month::February, 1)).unwrap();
        assert!(late.contains("2022 ended on") && late.contains("fixes ended on"), "{late}");
    }
}
