//! The stages of GitLab: the token, the project, references.

use time::OffsetDateTime;

use super::{Capability, EXPIRY_WARNING_DAYS, Refused, RepositoryFacts, Test};
use crate::credential::{Credential, CredentialKind};
use crate::dial::HttpClient;
use crate::provider::gitlab::{self, Found, Place, SCOPES_GIT, SCOPES_READ, TokenFacts};
use crate::provider::rest::{Api, MAX_TEXT_CHARS, shown};
use crate::provider::{Place as AnyPlace, Scope};
use crate::report::{Code, Stage};
use crate::task::diagnose::Failure;
use crate::task::stop::until_stopped;

/// The least scope that lets a token clone.
const SCOPE_GIT: &str = SCOPES_GIT[0];

/// The least scope that lets a token read by the API.
const SCOPE_READ: &str = SCOPES_READ[0];

/// The scope for statuses and hooks.
const SCOPE_WRITE: &str = "api";

impl Test<'_> {
    pub(super) async fn gitlab(
        &mut self,
        client: &HttpClient,
        place: Place,
        credential: Option<&Credential>,
    ) -> Result<(), Failure> {
        self.report.server.product = Some("GitLab".to_owned());
        self.report.server.api_version = Some("v4".to_owned());
        let api = credential.and_then(|credential| gitlab::api(client, credential));
        let Some(api) = api else {
            return self.gitlab_by_git_alone(client, &place, credential).await;
        };
        let is_oauth = self.subject.kind == Some(CredentialKind::Bearer);
        let token = self.gitlab_sign_in(&api, &place, is_oauth).await?;
        self.check_git_scope(&place, &token)?;
        let place = self.gitlab_place_to_read(&api, place, &token).await?;
        self.git_after_api(client, &AnyPlace::Gitlab(place), SCOPE_GIT, credential).await
    }

    /// Passwords and deploy tokens are for git only, and so is nobody.
    async fn gitlab_by_git_alone(
        &mut self,
        client: &HttpClient,
        place: &Place,
        credential: Option<&Credential>,
    ) -> Result<(), Failure> {
        self.planned.retain(|stage| *stage != Stage::Authorize);
        let named = self.request.test_repository.as_deref().filter(|_| place.scope() != Scope::Repository);
        let place = named.map_or_else(|| place.clone(), |name| place.with_named_repository(name));
        if place.scope() != Scope::Repository {
            self.warn_git_not_tried();
            return Ok(());
        }
        self.git_alone(client, &AnyPlace::Gitlab(place), credential).await?;
        if credential.is_some_and(gitlab::is_deploy_token) {
            self.warn(Code::ApiRefused, Stage::Authenticate, "a deploy token is for git only", vec![]);
        }
        Ok(())
    }

    /// Presents the token and learns what it says about itself, and the server's release.
    async fn gitlab_sign_in(
        &mut self,
        api: &Api,
        place: &Place,
        is_oauth: bool,
    ) -> Result<TokenFacts, Failure> {
        self.log.begin(Stage::Authenticate);
        let token = until_stopped(self.control, gitlab::authenticate(api, place, is_oauth)).await;
        let token = token.map_err(Failure::Stopped)?.map_err(Failure::Provider)?;
        self.api_accepted = true;
        self.report.identity = token.user.clone();
        self.report.credential.expires_at = token.expires_at.clone();
        if let Some(scopes) = &token.scopes {
            self.log.fact("scopes", scopes.clone());
            self.report.credential.scopes = scopes.clone();
        }
        self.log.pass();
        if !gitlab::allows(token.scopes.as_deref(), &[SCOPE_WRITE]) {
            self.report.capabilities.set_status = Capability::No;
            self.report.capabilities.manage_hooks = Capability::No;
        }
        self.warn_about_token(&token);
        let version = until_stopped(self.control, gitlab::version(api, place)).await;
        let version = version.map_err(Failure::Stopped)?.map_err(Failure::Provider)?;
        if let Some(version) = version {
            self.log.fact_at(Stage::Identify, "version", version.clone());
            self.report.server.version = Some(version);
        }
        Ok(token)
    }

    fn warn_about_token(&mut self, token: &TokenFacts) {
        let Some(expires_at) = &token.expires_at else { return };
        let days = gitlab::days_left(expires_at, OffsetDateTime::now_utc());
        if days.is_some_and(|days| days < EXPIRY_WARNING_DAYS) {
            self.warn(Code::TokenExpiresSoon, Stage::Authenticate, &format!("on {expires_at}"), vec![]);
        }
    }

    /// The stage `authorize`, as far as the token's own word about its scopes goes.
    fn check_git_scope(&mut self, place: &Place, token: &TokenFacts) -> Result<(), Failure> {
        self.log.begin(Stage::Authorize);
        let needs_git = place.scope() == Scope::Repository || self.request.test_repository.is_some();
        if !needs_git || gitlab::allows(token.scopes.as_deref(), &SCOPES_GIT) {
            return Ok(());
        }
        Err(Failure::ScopeMissing { scopes: vec![SCOPE_GIT.to_owned()], said: None })
    }

    /// Asks for the project or the group, and finds the repository to read where the target is none itself.
    async fn gitlab_place_to_read(
        &mut self,
        api: &Api,
        place: Place,
        token: &TokenFacts,
    ) -> Result<Place, Failure> {
        let may_read = gitlab::allows(token.scopes.as_deref(), &SCOPES_READ);
        if place.scope() == Scope::Repository {
            if !may_read {
                let scopes = vec![SCOPE_READ.to_owned()];
                self.refused.push(Refused { stage: Stage::Authorize, scopes, said: None });
                return Ok(place);
            }
            self.log.begin(Stage::Repository);
            let found = until_stopped(self.control, gitlab::project(api, &place)).await;
            let found = found.map_err(Failure::Stopped)?;
            match self.note_refusal(Stage::Repository, found)? {
                Some(Found::Group) => return self.gitlab_group(api, place.as_group()).await,
                Some(Found::Project(project)) => {
                    self.log.fact("repository", place.full_path());
                    let branch = project.default_branch.as_deref();
                    let branch = branch.and_then(|name| name.strip_prefix("refs/heads/")).map(str::to_owned);
                    self.report.repository =
                        Some(RepositoryFacts { default_branch: branch, head: None, references: None });
                }
                None => {}
            }
            return Ok(place);
        }
        if !may_read && self.request.test_repository.is_none() {
            return Err(Failure::ScopeMissing { scopes: vec![SCOPE_READ.to_owned()], said: None });
        }
        if may_read {
            let account = until_stopped(self.control, gitlab::account(api, &place)).await;
            account.map_err(Failure::Stopped)?.map_err(Failure::Provider)?;
        }
        self.gitlab_group(api, place).await
    }

    /// The repository to read below a group or the root, where one is named or can be found.
    async fn gitlab_group(&mut self, api: &Api, place: Place) -> Result<Place, Failure> {
        self.report.target.scope = Some(Scope::Account);
        if let Some(name) = &self.request.test_repository {
            self.log.fact("test_repository", shown(name, MAX_TEXT_CHARS));
            return Ok(place.with_named_repository(name));
        }
        let is_admitted = |place: &Place| self.admitted_url(&AnyPlace::Gitlab(place.clone())).is_ok();
        let first = gitlab::first_repository(api, &place, is_admitted);
        let first = until_stopped(self.control, first).await.map_err(Failure::Stopped)?;
        let Some(found) = self.first_found(first)? else { return Ok(place) };
        self.log.fact("test_repository", found.full_path());
        Ok(found)
    }
}
