//! The stages of GitLab: the token, the project, references.

use std::time::Duration;

use time::OffsetDateTime;

use super::{Capability, EXPIRY_WARNING_DAYS, Refused, RepositoryFacts, Test};
use crate::credential::Credential;
use crate::dial::HttpClient;
use crate::provider::gitlab::{self, Found, Place, Project, Release, TokenFacts, TokenKind};
use crate::provider::gitlab::{LEVEL_FOR_HOOKS, LEVEL_FOR_STATUS, SCOPE_WRITE, SCOPES_GIT, SCOPES_READ};
use crate::provider::rest::{Api, MAX_TEXT_CHARS, Trace, shown};
use crate::provider::{Place as AnyPlace, ProviderError, Scope};
use crate::report::{Code, Stage};
use crate::task::diagnose::Failure;
use crate::task::stop::within_step;

/// The least scope that lets a token clone.
const SCOPE_GIT: &str = SCOPES_GIT[0];

/// The least scope that lets a token read by the API.
const SCOPE_READ: &str = SCOPES_READ[0];

/// What is asked for about a project, as a warning names it.
const PROJECT_CALL: &str = "the project's entry";

/// How long a call may take that a test can do without.
const OPTIONAL_CALL_LIMIT: Duration = Duration::from_secs(5);

/// What was learned after the token was taken, all at the same time. What a test can do without is `None` where
/// it did not come.
struct Learned {
    user: Option<Option<String>>,
    release: Option<Result<Option<Release>, ProviderError>>,
    oauth: Option<TokenFacts>,
    /// `None` where the token's own scopes say that there is nothing to ask for.
    found: Option<Result<Found, ProviderError>>,
    /// The head of the answer to that.
    trace: Trace,
}

impl Test<'_> {
    pub(super) async fn gitlab(
        &mut self,
        client: &HttpClient,
        place: Place,
        credential: Option<&Credential>,
    ) -> Result<(), Failure> {
        let api = credential.and_then(|credential| gitlab::api(client, credential));
        let (Some(api), Some(credential)) = (api, credential) else {
            return self.gitlab_by_git_alone(client, &place, credential).await;
        };
        let place = self.gitlab_api(&api, place, gitlab::is_oauth(credential), true).await?;
        self.git_after_api(client, &AnyPlace::Gitlab(place), SCOPE_GIT, Some(credential)).await
    }

    /// Passwords and the tokens of deployments and jobs are for git only, and so is nobody.
    async fn gitlab_by_git_alone(
        &mut self,
        client: &HttpClient,
        place: &Place,
        credential: Option<&Credential>,
    ) -> Result<(), Failure> {
        self.set_gitlab_server();
        self.planned.retain(|stage| *stage != Stage::Authorize);
        let named = self.request.test_repository.as_deref().filter(|_| place.scope() != Scope::Repository);
        let place = named.map_or_else(|| place.clone(), |name| place.with_named_repository(name));
        if place.scope() != Scope::Repository {
            self.warn_git_not_tried();
            return Ok(());
        }
        self.git_alone(client, &AnyPlace::Gitlab(place), credential).await?;
        if let Some(kind) = credential.and_then(gitlab::git_only_kind) {
            self.log.fact_at(Stage::Authenticate, "token_kind", kind.as_str());
            let seen = match kind {
                TokenKind::Job => "the token of a job is for git and for a few calls about its own job",
                _ => "a deploy token is for git only",
            };
            self.warn(Code::ApiRefused, Stage::Authenticate, seen, vec![]);
        }
        Ok(())
    }

    fn set_gitlab_server(&mut self) {
        self.report.server.product = Some("GitLab".to_owned());
        self.report.server.api_version = Some("v4".to_owned());
    }

    /// The stages `authenticate`, `authorize` and `repository` by the API. The place that comes back is the one to
    /// read by git; with `by_git` the same token is to do that.
    pub(super) async fn gitlab_api(
        &mut self,
        api: &Api,
        place: Place,
        is_oauth: bool,
        by_git: bool,
    ) -> Result<Place, Failure> {
        self.set_gitlab_server();
        self.log.begin(Stage::Authenticate);
        let (traced, trace) = api.traced();
        let token = within_step(self.control, gitlab::authenticate(&traced, &place, is_oauth)).await;
        let token = token.map_err(Failure::Stopped)?;
        self.note_evidence(Stage::Authenticate, &trace, token.is_err());
        let mut token = token.map_err(Failure::Provider)?;
        self.api_accepted = true;
        self.log.begin(Stage::Authorize);
        let learned = within_step(self.control, Box::pin(learn(api, &place, &token, is_oauth))).await;
        let learned = learned.map_err(Failure::Stopped)?;
        if let Some(told) = learned.oauth {
            token = TokenFacts { user: token.user, rate_limit: token.rate_limit, ..told };
        }
        if let Some(Some(name)) = learned.user {
            token.set_user(name);
        }
        self.take_token(&token);
        // Of what a test can do without, only a release that is not supported ends it.
        match learned.release {
            Some(Err(error @ ProviderError::TooOld { .. })) => return Err(Failure::Provider(error)),
            Some(Ok(Some(release))) => self.take_release(release),
            _ => {}
        }
        if by_git {
            self.check_git_scope(&place, &token)?;
        }
        self.gitlab_place_to_read(api, place, &token, learned.found, &learned.trace).await
    }

    fn take_token(&mut self, token: &TokenFacts) {
        let fact = |name: &str, value: serde_json::Value| self.log.fact_at(Stage::Authenticate, name, value);
        if let Some(kind) = token.kind {
            fact("token_kind", kind.as_str().into());
        }
        if let Some(user) = &token.user {
            fact("user", user.as_str().into());
        }
        if let Some(limit) = token.rate_limit {
            fact("rate_limit", limit.limit.into());
            fact("rate_limit_remaining", limit.remaining.into());
        }
        if let Some(scopes) = &token.scopes {
            fact("scopes", scopes.as_slice().into());
            self.report.credential.scopes.clone_from(scopes);
        }
        self.report.identity.clone_from(&token.user);
        self.report.credential.expires_at.clone_from(&token.expires_at);
        self.set_capabilities(token, None);
        self.warn_about_token(token);
    }

    fn warn_about_token(&mut self, token: &TokenFacts) {
        let excessive = token.excessive_scopes();
        if !excessive.is_empty() {
            let seen = format!("nothing here needs {}", excessive.join(", "));
            self.warn(Code::ScopeExcessive, Stage::Authenticate, &seen, vec![]);
        }
        // A token of OAuth lives for two hours and is renewed by whoever got it.
        let Some(expires_at) = token.expires_at.as_ref().filter(|_| token.kind != Some(TokenKind::Oauth))
        else {
            return;
        };
        let days = gitlab::days_left(expires_at, OffsetDateTime::now_utc());
        if days.is_some_and(|days| days < EXPIRY_WARNING_DAYS) {
            self.warn(Code::TokenExpiresSoon, Stage::Authenticate, &format!("on {expires_at}"), vec![]);
        }
    }

    fn take_release(&mut self, release: Release) {
        self.log.fact_at(Stage::Identify, "product", release.product());
        self.log.fact_at(Stage::Identify, "version", release.version.clone());
        if let Some(months) = release.months_out_of_maintenance(OffsetDateTime::now_utc()) {
            let seen = format!(
                "GitLab {} came out about {months} months ago, and only the latest monthly releases are maintained",
                release.version
            );
            self.warn(Code::ServerReleaseEnds, Stage::Identify, &seen, vec![]);
        }
        self.report.server.version = Some(release.version);
    }

    /// What follows from the token's scopes and from the access level of its user.
    fn set_capabilities(&mut self, token: &TokenFacts, access_level: Option<u64>) {
        let has_scope = token.scopes.as_deref().map(|scopes| gitlab::allows(Some(scopes), &[SCOPE_WRITE]));
        let able = |least| match (has_scope, access_level) {
            (Some(false), _) => Capability::No,
            (_, Some(level)) if level < least => Capability::No,
            (Some(true), Some(_)) => Capability::Yes,
            _ => Capability::Unknown,
        };
        self.report.capabilities.set_status = able(LEVEL_FOR_STATUS);
        self.report.capabilities.manage_hooks = able(LEVEL_FOR_HOOKS);
    }

    /// The stage `authorize`, as far as the token's own word about its scopes goes.
    fn check_git_scope(&mut self, place: &Place, token: &TokenFacts) -> Result<(), Failure> {
        let needs_git = place.scope() == Scope::Repository || self.request.test_repository.is_some();
        if !needs_git || gitlab::allows(token.scopes.as_deref(), &SCOPES_GIT) {
            return Ok(());
        }
        Err(Failure::ScopeMissing { scopes: vec![SCOPE_GIT.to_owned()], said: None })
    }

    /// Takes what was found at the place, and finds the repository to read where the target is none itself.
    async fn gitlab_place_to_read(
        &mut self,
        api: &Api,
        place: Place,
        token: &TokenFacts,
        found: Option<Result<Found, ProviderError>>,
        trace: &Trace,
    ) -> Result<Place, Failure> {
        self.report.capabilities.read_projects = match &found {
            Some(Ok(_)) => Capability::Yes,
            Some(Err(error)) if error.is_forbidden() => Capability::No,
            Some(Err(_)) => Capability::Unknown,
            None => Capability::No,
        };
        if place.scope() == Scope::Repository {
            let Some(found) = found else {
                let scopes = vec![SCOPE_READ.to_owned()];
                self.refused.push(Refused {
                    stage: Stage::Authorize,
                    call: PROJECT_CALL,
                    scopes,
                    said: None,
                });
                return Ok(place);
            };
            self.log.begin(Stage::Repository);
            self.note_evidence(Stage::Repository, trace, found.is_err());
            let found = found.map_err(|error| self.without_names_beyond(&place, error));
            match self.note_refusal(Stage::Repository, PROJECT_CALL, found)? {
                Some(Found::Group) => return self.gitlab_group(api, place.as_group()).await,
                Some(Found::Project(project)) => self.take_project(&place, token, &project),
                None => {}
            }
            return Ok(place);
        }
        if let Some(found) = &found {
            self.note_evidence(Stage::Authorize, trace, found.is_err());
        }
        match found {
            Some(Err(ProviderError::Forbidden { said, .. })) => return Err(self.read_scope_missing(said)),
            Some(found) => {
                let found = found.map_err(|error| self.without_names_beyond(&place, error));
                found.map(|_| ()).map_err(Failure::Provider)?;
            }
            None if self.request.test_repository.is_none() => return Err(self.read_scope_missing(None)),
            None => {}
        }
        self.gitlab_group(api, place).await
    }

    fn read_scope_missing(&self, said: Option<String>) -> Failure {
        Failure::ScopeMissing { scopes: vec![SCOPE_READ.to_owned()], said }
    }

    fn take_project(&mut self, place: &Place, token: &TokenFacts, project: &Project) {
        self.log.fact("repository", place.full_path());
        if project.is_archived {
            self.log.fact("archived", true);
        }
        if let Some(level) = project.access_level {
            self.log.fact("access_level", level);
        }
        self.set_capabilities(token, project.access_level);
        let branch = project.default_branch.as_deref();
        let default_branch = branch.and_then(|name| name.strip_prefix("refs/heads/")).map(str::to_owned);
        self.report.repository = Some(RepositoryFacts { default_branch, head: None, references: None });
    }

    /// The repository to read below a group or the root, where one is named or can be found.
    async fn gitlab_group(&mut self, api: &Api, place: Place) -> Result<Place, Failure> {
        self.report.target.scope = Some(Scope::Account);
        if let Some(name) = &self.request.test_repository {
            let shown = shown(name, MAX_TEXT_CHARS);
            let place = place.with_named_repository(name);
            self.begin_test_repository(&shown);
            return Ok(place);
        }
        let is_admitted = |place: &Place| self.admitted_url(&AnyPlace::Gitlab(place.clone())).is_ok();
        let first = gitlab::first_repository(api, &place, is_admitted);
        let first = within_step(self.control, first).await.map_err(Failure::Stopped)?;
        let Some(found) = self.first_found(first)? else { return Ok(place) };
        self.begin_test_repository(&found.full_path());
        Ok(found)
    }

    /// Leaves out the names of places that policy would not admit: a token sees more than whoever set the task may
    /// hear of.
    fn without_names_beyond(&self, place: &Place, error: ProviderError) -> ProviderError {
        let admitted = |mut near: Vec<String>| {
            near.retain(|name| self.admitted_url(&AnyPlace::Gitlab(place.with_repository(name))).is_ok());
            near
        };
        match error {
            ProviderError::RepositoryHidden { name, near } => {
                ProviderError::RepositoryHidden { name, near: admitted(near) }
            }
            ProviderError::ProjectHidden { name, near } => {
                ProviderError::ProjectHidden { name, near: admitted(near) }
            }
            error => error,
        }
    }

    /// Notes the repository that stands for a group, at the stage that found it and at the one that reads it.
    fn begin_test_repository(&self, name: &str) {
        self.log.fact("test_repository", name);
        if self.log.current() != Some(Stage::Repository) {
            self.log.begin(Stage::Repository);
            self.log.fact("test_repository", name);
        }
    }
}

/// Asks for everything that a token which was taken can tell, in one round trip.
async fn learn(api: &Api, place: &Place, token: &TokenFacts, is_oauth: bool) -> Learned {
    let may_read = gitlab::allows(token.scopes.as_deref(), &SCOPES_READ);
    let needs_user = token.user.is_none() && token.may_ask_for_user();
    let (traced, trace) = api.traced();
    let found = async {
        match place.scope() {
            _ if !may_read => None,
            Scope::Repository => Some(gitlab::project(&traced, place).await),
            Scope::Account | Scope::Project => {
                Some(gitlab::account(&traced, place).await.map(|()| Found::Group))
            }
        }
    };
    let (user, release, oauth, found) = tokio::join!(
        optional(needs_user, gitlab::user(api, place)),
        optional(token.may_ask_for_user(), gitlab::release(api, place)),
        optional(is_oauth, gitlab::oauth(api, place)),
        found
    );
    Learned { user: user.and_then(Result::ok), release, oauth: oauth.and_then(Result::ok), found, trace }
}

/// A call that the test can do without: not made where there is no use in it, and not waited for long.
async fn optional<T>(
    is_wanted: bool,
    call: impl Future<Output = Result<T, ProviderError>>,
) -> Option<Result<T, ProviderError>> {
    if is_wanted { tokio::time::timeout(OPTIONAL_CALL_LIMIT, call).await.ok() } else { None }
}
