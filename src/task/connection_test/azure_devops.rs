//! The stages of Azure DevOps: identity, project, repository, references.

use reqwest::header::AUTHORIZATION;

use super::{RepositoryFacts, Test};
use crate::credential::Credential;
use crate::dial::HttpClient;
use crate::provider::azure_devops::{self, Connection, Place, SCOPE_CODE};
use crate::provider::rest::{Api, MAX_TEXT_CHARS, shown};
use crate::provider::{Place as AnyPlace, Provider, ProviderError, Scope};
use crate::remote_url::RemoteUrl;
use crate::report::{Code, Stage};
use crate::task::diagnose::Failure;
use crate::task::stop::until_stopped;

impl Test<'_> {
    pub(super) async fn azure_devops(
        &mut self,
        client: &HttpClient,
        place: Place,
        credential: Option<&Credential>,
    ) -> Result<(), Failure> {
        let header = credential.and_then(|known| known.git_authorization(Provider::AzureDevops.token_user()));
        let Some(header) = header else {
            return self.azure_without_credential(client, &place).await;
        };
        let api = Api::with_credential(client.clone(), AUTHORIZATION, header);
        let version = self.azure_sign_in(&api, &place).await?;
        let place = self.azure_place_to_read(&api, place, &version).await?;
        if place.scope() == Scope::Repository {
            self.admitted_url(&AnyPlace::AzureDevops(place.clone()))?;
            self.log.begin(Stage::Repository);
            let found = azure_devops::repository(&api, &place, &version);
            let found = until_stopped(self.control, found).await.map_err(Failure::Stopped)?;
            if let Some(repository) = self.note_refusal(Stage::Repository, found)? {
                self.log.fact("repository", place.names());
                let branch = repository.default_branch.as_deref();
                let branch = branch.map(|name| name.strip_prefix("refs/heads/").unwrap_or(name).to_owned());
                self.report.repository =
                    Some(RepositoryFacts { default_branch: branch, head: None, references: None });
            }
        }
        self.git_after_api(client, &AnyPlace::AzureDevops(place), SCOPE_CODE, credential).await
    }

    /// A public project can be read by git without any credential; its API is not needed for that.
    async fn azure_without_credential(&mut self, client: &HttpClient, place: &Place) -> Result<(), Failure> {
        match place.scope() {
            Scope::Repository => self.git_alone(client, &AnyPlace::AzureDevops(place.clone()), None).await,
            Scope::Account | Scope::Project => Err(Failure::Provider(ProviderError::CredentialDemanded)),
        }
    }

    /// Presents the credential and learns the release: the version of the REST interface to use.
    async fn azure_sign_in(&mut self, api: &Api, place: &Place) -> Result<String, Failure> {
        self.log.begin(Stage::Authenticate);
        let connection = until_stopped(self.control, azure_devops::connection(api, place)).await;
        let connection = connection.map_err(Failure::Stopped)?.map_err(Failure::Provider)?;
        self.api_accepted = true;
        if let Some(user) = &connection.user {
            self.log.fact("user", user.clone());
        }
        self.log.pass();
        self.warn_about_public_url(&connection);
        self.report.identity = connection.user.clone();
        let release = until_stopped(self.control, azure_devops::release(api, place, &connection)).await;
        let release = release.map_err(Failure::Stopped)?.map_err(Failure::Provider)?;
        self.log.fact_at(Stage::Identify, "product", release.product);
        self.log.fact_at(Stage::Identify, "api_version", release.api_version.clone());
        self.report.server.product = Some(release.product.to_owned());
        self.report.server.version = release.release.map(str::to_owned);
        self.report.server.api_version = Some(release.api_version.clone());
        Ok(release.api_version)
    }

    /// The stage `authorize`, and the repository to read where the target is none itself.
    async fn azure_place_to_read(
        &mut self,
        api: &Api,
        place: Place,
        version: &str,
    ) -> Result<Place, Failure> {
        self.log.begin(Stage::Authorize);
        let authorized = until_stopped(self.control, azure_devops::authorize(api, &place, version)).await;
        let authorized = authorized.map_err(Failure::Stopped)?;
        if place.scope() == Scope::Repository {
            self.note_refusal(Stage::Authorize, authorized)?;
            return Ok(place);
        }
        if let Some(name) = &self.request.test_repository {
            self.note_refusal(Stage::Authorize, authorized)?;
            self.log.fact("test_repository", shown(name, MAX_TEXT_CHARS));
            return Ok(place.with_named_repository(name));
        }
        // Without a repository in sight the list of projects is all that the target is about.
        match authorized {
            Err(ProviderError::Forbidden { scopes, said }) => {
                return Err(Failure::ScopeMissing { scopes, said });
            }
            authorized => authorized.map_err(Failure::Provider)?,
        }
        let is_admitted = |place: &Place| self.admitted_url(&AnyPlace::AzureDevops(place.clone())).is_ok();
        let first = azure_devops::first_repository(api, &place, version, is_admitted);
        let first = until_stopped(self.control, first).await.map_err(Failure::Stopped)?;
        let Some(found) = self.first_found(first)? else { return Ok(place) };
        self.log.fact("test_repository", found.names());
        Ok(found)
    }

    /// A public URL that was never set up makes every link that the server hands out lead nowhere.
    fn warn_about_public_url(&mut self, connection: &Connection) {
        let Some(url) = &connection.public_url else { return };
        let is_localhost = RemoteUrl::parse(url).is_ok_and(|url| url.host() == "localhost");
        if is_localhost && self.subject.host != "localhost" {
            self.warn(Code::PublicUrlIsLocalhost, Stage::Identify, &format!("it says {url}"), vec![]);
        }
    }
}
