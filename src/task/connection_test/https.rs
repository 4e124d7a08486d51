//! A test over HTTP: the measured connection, the kind of server, its API where it has one, and git.

use super::Test;
use super::reach::Declared;
use crate::credential::{Credential, CredentialKind};
use crate::dial::HttpClient;
use crate::provider::detect::{self, Identified, Known};
use crate::provider::rest::Api;
use crate::provider::{Place, Provider, Scope, azure_devops, gitlab};
use crate::remote_url::Scheme;
use crate::report::{Code, Stage};
use crate::task::diagnose::Failure;
use crate::task::login::{Prepared, https_remote};
use crate::task::stop::within_step;
use crate::task::target::Target;

impl Test<'_> {
    pub(super) async fn over_https(&mut self, prepared: Prepared) -> Result<(), Failure> {
        let Prepared { target, credential } = prepared;
        let known_provider = self.request.provider.or(target.server.provider);
        self.plan(target.url.scheme(), known_provider, credential.is_some());
        self.expect_place(&target, known_provider);
        let client = self.connect(&target).await?;
        let identified = self.identify(&client, &target, known_provider).await?;
        self.plan(target.url.scheme(), Some(identified.place.provider()), credential.is_some());
        self.set_place(&identified.place);
        self.declared = Some(Declared { server: target.server.clone(), place: identified.place.clone() });
        if wants_rest_beside(identified.place.provider(), credential.as_ref())
            && let Some(beside) = self.api_credential(&target.server).await?
        {
            self.plan(target.url.scheme(), Some(identified.place.provider()), true);
            let asked = Box::pin(self.ask_beside(&client, identified.clone(), &beside)).await?;
            if let Some(place) = asked {
                return self.git_after_api(&client, &place, "", credential.as_ref()).await;
            }
        }
        match identified.place.clone() {
            Place::AzureDevops(place) => {
                self.azure_devops(&client, place, credential.as_ref(), &identified.greeting).await
            }
            Place::Gitlab(place) => self.gitlab(&client, place, credential.as_ref()).await,
            Place::Git(_) => self.git_alone(&client, &identified.place, credential.as_ref()).await,
        }
    }

    /// Notes what the URL and the operator say of the target, for a report that comes to no more than that.
    pub(super) fn expect_place(&mut self, target: &Target, known: Option<Provider>) {
        let provider = known.or_else(|| detect::by_shape(&target.url));
        self.report.target.provider = provider;
        self.report.target.scope = match provider {
            Some(Provider::AzureDevops) => {
                let base = target.server.provider.map(|_| &target.server.url);
                Some(azure_devops::Place::parse(&target.url, base, self.request.scope).scope())
            }
            Some(Provider::Git) => Some(Scope::Repository),
            // Only the server knows whether a path is a project or a group, unless it has the suffix of git.
            _ => self.request.scope.or(target.url.path().ends_with(".git").then_some(Scope::Repository)),
        };
    }

    /// Names the stages that apply, as far as the kind of server is known.
    fn plan(&mut self, scheme: Scheme, provider: Option<Provider>, has_credential: bool) {
        let has_api = provider != Some(Provider::Git);
        let applies = [
            (Stage::Policy, true),
            (Stage::Resolve, true),
            (Stage::Connect, true),
            (Stage::Tls, scheme == Scheme::Https),
            (Stage::Identify, has_api),
            (Stage::Authenticate, true),
            (Stage::Authorize, has_api && has_credential),
            (Stage::Repository, true),
            (Stage::References, true),
        ];
        self.planned = applies.into_iter().filter_map(|(stage, applies)| applies.then_some(stage)).collect();
    }

    /// Finds out what answers there. A plain git server by the operator's word has nothing to be asked.
    pub(super) async fn identify(
        &mut self,
        client: &HttpClient,
        target: &Target,
        provider: Option<Provider>,
    ) -> Result<Identified, Failure> {
        if provider != Some(Provider::Git) {
            self.log.begin(Stage::Identify);
        }
        // A URL on the command line declares itself, and then there is no base to read it by.
        let declared = target.server.provider.is_some() && target.server.url.path() != target.url.path();
        let names_root = target.server.provider.is_some() && self.request.target.names_server();
        let known = Known {
            url: &target.url,
            base: (declared || names_root).then_some(&target.server.url),
            provider,
            scope: self.request.scope,
        };
        let (anonymous, trace) = Api::anonymous(client.clone()).traced();
        let identified = within_step(self.control, detect::identify(&anonymous, known)).await;
        let identified = identified.map_err(Failure::Stopped)?;
        self.note_evidence(Stage::Identify, &trace, identified.is_err());
        let identified = identified.map_err(Failure::Provider)?;
        if provider != Some(Provider::Git) {
            // What nobody named and nothing showed is a guess until git has answered.
            if identified.place.provider() != Provider::Git {
                self.log.fact("provider", identified.place.provider().as_str());
            }
            self.was_challenged = !identified.schemes.is_empty();
            if self.was_challenged {
                self.log.fact("schemes", identified.schemes.clone());
            }
            self.compare_clocks(client);
            self.log.pass();
        }
        Ok(identified)
    }

    /// The test where git is all that can be asked: no API, or none for this credential. The first answer to
    /// git is then the answer to the credential, and git records the stages for it.
    pub(super) async fn git_alone(
        &mut self,
        client: &HttpClient,
        place: &Place,
        credential: Option<&Credential>,
    ) -> Result<(), Failure> {
        let url = self.admitted_url(place)?;
        let remote = https_remote(url, client.clone(), place.provider(), credential);
        self.read_references(&remote, "").await?;
        if place.provider() == Provider::Git {
            self.log.fact_at(Stage::Identify, "provider", Provider::Git.as_str());
            self.compare_clocks(client);
        }
        Ok(())
    }

    /// Reads the place by git after the API has let us in.
    pub(super) async fn git_after_api(
        &mut self,
        client: &HttpClient,
        place: &Place,
        git_scope: &str,
        credential: Option<&Credential>,
    ) -> Result<(), Failure> {
        if place.scope() != Scope::Repository {
            self.warn_git_not_tried();
            return Ok(());
        }
        let url = self.admitted_url(place)?;
        let remote = https_remote(url, client.clone(), place.provider(), credential);
        self.read_references(&remote, git_scope).await
    }

    pub(super) fn warn_git_not_tried(&mut self) {
        let stage = self.log.current().unwrap_or(Stage::Identify);
        let seen =
            if self.list_too_long { "the list of repositories was too long to choose from" } else { "" };
        self.warn(Code::GitNotTried, stage, seen, vec![]);
    }
}

/// Whether a credential of its own for REST has a use beside that of git.
fn wants_rest_beside(provider: Provider, credential: Option<&Credential>) -> bool {
    match (provider, credential) {
        (Provider::Git, _) => false,
        (_, None) => true,
        (Provider::Gitlab, Some(credential)) if gitlab::git_only_kind(credential).is_some() => true,
        (_, Some(credential)) => credential.kind() == CredentialKind::Password,
    }
}
