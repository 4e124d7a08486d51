//! The stages of Azure DevOps: identity, project, repository, references.

mod findings;

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use reqwest::header::AUTHORIZATION;

use super::{Capability, Test};
use crate::credential::Credential;
use crate::dial::HttpClient;
use crate::provider::azure_devops::{
    self, Connection, Greeting, OwnUrls, Permissions, Place, Project, Release, Repository, SCOPE_CODE,
};
use crate::provider::rest::{Api, MAX_TEXT_CHARS, shown};
use crate::provider::{Place as AnyPlace, Provider, ProviderError, Scope};
use crate::report::Stage;
use crate::task::diagnose::Failure;
use crate::task::stop::within_step;

/// How long the question of permissions may hold up a test whose git has answered already.
const PERMISSIONS_GRACE: Duration = Duration::from_millis(250);

/// A server that has let us in.
struct SignedIn {
    api: Api,
    connection: Connection,
    release: Release,
}

/// What the API told: the place to read by git, and its repository where the API shows it.
struct Told {
    server: SignedIn,
    place: Place,
    repository: Option<Repository>,
}

impl Test<'_> {
    pub(super) async fn azure_devops(
        &mut self,
        client: &HttpClient,
        place: Place,
        credential: Option<&Credential>,
        greeting: &Greeting,
    ) -> Result<(), Failure> {
        let Some(known) = credential else {
            return self.azure_without_credential(client, &place).await;
        };
        let asked = self.azure_ask(client, place, known, greeting).await?;
        let place = AnyPlace::AzureDevops(asked.place.clone());
        let read = self.git_after_api(client, &place, SCOPE_CODE, credential);
        let (read, permissions) = with_courtesy(read, asked.permissions()).await;
        self.take_azure_permissions(permissions.flatten());
        read
    }

    /// The stages of the API, where git has a credential of its own. The place that comes back is the one to read
    /// by git.
    pub(super) async fn azure_api(
        &mut self,
        client: &HttpClient,
        place: Place,
        credential: &Credential,
        greeting: &Greeting,
    ) -> Result<Place, Failure> {
        let asked = self.azure_ask(client, place, credential, greeting).await?;
        let ((), permissions) = with_courtesy(std::future::ready(()), asked.permissions()).await;
        self.take_azure_permissions(permissions.flatten());
        Ok(asked.place)
    }

    async fn azure_ask(
        &mut self,
        client: &HttpClient,
        place: Place,
        credential: &Credential,
        greeting: &Greeting,
    ) -> Result<Told, Failure> {
        let header = credential.git_authorization(Provider::AzureDevops.token_user());
        let api = Api::with_credential(client.clone(), AUTHORIZATION, header.ok_or(Failure::KindMismatch)?);
        let anonymous = Api::anonymous(client.clone());
        let server = self.azure_sign_in(api, anonymous, &place, greeting).await?;
        let mut own_urls = server.connection.own_urls.clone();
        let (place, repository) = self.azure_place_to_read(&server, place, &mut own_urls).await?;
        self.warn_about_own_urls(&own_urls);
        Ok(Told { server, place, repository })
    }

    /// A public project can be read by git without any credential; its API is not needed for that.
    async fn azure_without_credential(&mut self, client: &HttpClient, place: &Place) -> Result<(), Failure> {
        match place.scope() {
            Scope::Repository => self.git_alone(client, &AnyPlace::AzureDevops(place.clone()), None).await,
            Scope::Account | Scope::Project => Err(Failure::Provider(ProviderError::CredentialDemanded)),
        }
    }

    /// Presents the credential and learns the release: the version of the REST interface to use.
    async fn azure_sign_in(
        &mut self,
        api: Api,
        anonymous: Api,
        place: &Place,
        greeting: &Greeting,
    ) -> Result<SignedIn, Failure> {
        self.log.begin(Stage::Authenticate);
        let (traced, trace) = api.traced();
        let connection = azure_devops::connection(&traced, &anonymous, place, greeting);
        let connection = within_step(self.control, connection).await.map_err(Failure::Stopped)?;
        self.note_evidence(Stage::Authenticate, &trace, connection.is_err());
        let connection = connection.map_err(|error| self.azure_failure(error))?;
        self.api_accepted = true;
        if let Some(user) = &connection.user {
            self.log.fact("user", user.clone());
        }
        self.log.pass();
        self.report.identity = connection.user.clone();
        let (traced, trace) = api.traced();
        let release = azure_devops::release(&traced, place, connection.hosted);
        let release = within_step(self.control, release).await.map_err(Failure::Stopped)?;
        if release.is_err() {
            self.note_evidence(Stage::Identify, &trace, true);
        }
        let release = release.map_err(Failure::Provider)?;
        self.take_azure_release(&release);
        Ok(SignedIn { api, connection, release })
    }

    /// The stages `authorize` and `repository`, and the repository to read where the target is none itself.
    async fn azure_place_to_read(
        &mut self,
        server: &SignedIn,
        place: Place,
        own_urls: &mut OwnUrls,
    ) -> Result<(Place, Option<Repository>), Failure> {
        self.log.begin(Stage::Authorize);
        if place.scope() == Scope::Repository {
            self.admitted_url(&AnyPlace::AzureDevops(place.clone()))?;
            // Neither needs the other's answer, so that both are asked at once; authorize takes the time.
            let (project, repository) = {
                let asked = async { tokio::join!(server.project(&place), server.repository(&place)) };
                within_step(self.control, asked).await.map_err(Failure::Stopped)?
            };
            self.take_azure_project(server, &place, project, own_urls).await?;
            let repository = self.take_azure_repository(server, &place, repository, own_urls).await?;
            return Ok((place, repository));
        }
        let project = within_step(self.control, server.project(&place)).await.map_err(Failure::Stopped)?;
        let place = match &self.request.test_repository {
            Some(name) => {
                let name = name.clone();
                self.take_azure_project(server, &place, project, own_urls).await?;
                self.log.fact("test_repository", shown(&name, MAX_TEXT_CHARS));
                place.with_named_repository(&name)
            }
            None => match self.azure_found_repository(server, &place, project, own_urls).await? {
                Some(found) => found,
                None => return Ok((place, None)),
            },
        };
        self.admitted_url(&AnyPlace::AzureDevops(place.clone()))?;
        let repository =
            within_step(self.control, server.repository(&place)).await.map_err(Failure::Stopped)?;
        let repository = self.take_azure_repository(server, &place, repository, own_urls).await;
        self.log.fact_at(Stage::Repository, "test_repository", place.names());
        Ok((place, repository?))
    }

    /// A repository that the server lists, for a target that names none.
    async fn azure_found_repository(
        &mut self,
        server: &SignedIn,
        place: &Place,
        project: Asked<Project>,
        own_urls: &mut OwnUrls,
    ) -> Result<Option<Place>, Failure> {
        let is_refused = project.answer.as_ref().is_err_and(ProviderError::is_forbidden);
        self.take_azure_project(server, place, project, own_urls).await?;
        let is_admitted = |place: &Place| self.admitted_url(&AnyPlace::AzureDevops(place.clone())).is_ok();
        let first = azure_devops::first_repository(&server.api, place, &server.release, is_admitted);
        let first = match within_step(self.control, first).await.map_err(Failure::Stopped)? {
            // A token for git alone may list repositories and not projects. One that may do neither has no use here.
            Err(ProviderError::Forbidden { said, .. }) if is_refused => {
                return Err(self.scope_missing(SCOPE_CODE, said));
            }
            first => first,
        };
        let found = self.first_found(first)?;
        if let Some(found) = &found {
            self.log.fact("test_repository", found.names());
        }
        Ok(found)
    }

    fn take_azure_permissions(&mut self, permissions: Option<Permissions>) {
        let Some(permissions) = permissions else { return };
        // A token that was seen to lack a scope has not all of them, and then yes is more than is known.
        let has_all = self.report.capabilities.read_projects == Capability::Yes;
        let capability = |answer| match answer {
            Some(true) if has_all => Capability::Yes,
            Some(false) => Capability::No,
            Some(true) | None => Capability::Unknown,
        };
        self.report.capabilities.set_status = capability(permissions.set_status);
        self.report.capabilities.manage_hooks = capability(permissions.manage_hooks);
    }
}

/// An answer, and what was on its head.
struct Asked<T> {
    answer: Result<T, ProviderError>,
    trace: crate::provider::rest::Trace,
}

impl Told {
    /// What the server says of the user's permissions on the repository.
    async fn permissions(&self) -> Option<Permissions> {
        let identifiers = self.repository.as_ref()?.identifiers.as_ref()?;
        let version = self.server.release.api_version();
        let api = &self.server.api;
        Some(azure_devops::permissions(api, &self.place, version.as_deref(), identifiers).await)
    }
}

impl SignedIn {
    async fn project(&self, place: &Place) -> Asked<Project> {
        let (api, trace) = self.api.traced();
        let answer = azure_devops::authorize(&api, place, &self.release).await;
        Asked { answer, trace }
    }

    async fn repository(&self, place: &Place) -> Asked<Repository> {
        let (api, trace) = self.api.traced();
        Asked { answer: azure_devops::repository(&api, place, &self.release).await, trace }
    }
}

/// Runs `work`, and beside it a question whose answer is good to have: one that is not there a moment after
/// the work is done is gone without.
async fn with_courtesy<T, A>(
    work: impl Future<Output = T>,
    question: impl Future<Output = A>,
) -> (T, Option<A>) {
    let (mut work, mut question) = (pin!(work), pin!(question));
    let mut answer = None;
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                if answer.is_none() {
                    answer = tokio::time::timeout(PERMISSIONS_GRACE, question).await.ok();
                }
                return (done, answer);
            }
            told = &mut question, if answer.is_none() => answer = Some(told),
        }
    }
}
