//! Behaves like Azure DevOps Server: case-insensitive routes, four schemes on every 401, and its ways of saying no.

mod access;
mod answers;
mod calls;
mod contents;
mod route;

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::Response;

use self::access::{Access, Caller};
use self::answers::Answers;
pub(crate) use self::answers::sign_in_page;
use self::route::Route;
use crate::git_service::{self, GitRequest};
use crate::lfs::{self, LfsRequest};
use crate::site::{Site, empty, escape_path, respond, set_header};
use crate::world::{AzureDevOps, Provider, Repository};

/// What every call needs to know about its request.
struct Context<'a> {
    site: &'a Site,
    settings: &'a AzureDevOps,
    /// How the server names itself, base path included.
    public_url: String,
    caller: Caller<'a>,
    answers: Answers<'a>,
}

/// Answers one request to the Azure DevOps Server.
pub(crate) async fn answer(site: &Site, settings: &AzureDevOps, request: Request) -> Response {
    let origin = site.origin(&request);
    let public_url = settings.public_url.clone().unwrap_or_else(|| format!("{origin}{}", settings.base_path));
    let answers = Answers { settings, public_url: public_url.clone() };
    let path = request.uri().path();
    if path == "/" && !settings.base_path.is_empty() && settings.root_leads_on {
        let mut response = empty(StatusCode::FOUND);
        set_header(&mut response, "location", &format!("{}/", settings.base_path));
        return answers.dress(response, None);
    }
    let path = below_host_collection(settings, path);
    let Some(route) = Route::parse(&settings.base_path, &path) else {
        // What is outside of the base path is not the application's: IIS answers.
        return answers.not_found_page();
    };
    if matches!(route, Route::SignIn) {
        return answers
            .dress(respond(StatusCode::OK, "text/html; charset=utf-8", answers::SIGN_IN_HTML), None);
    }
    let caller = match access::authenticate(&site.world, settings, request.headers()) {
        Access::Granted(caller) => caller,
        Access::Anonymous => return answers.dress(answers.anonymous(), None),
        Access::Refused => return answers.dress(answers.refused(), None),
        Access::Unauthorized if settings.iis_basic_authentication => return answers.refused_by_iis(),
        Access::Unauthorized => return answers.dress(answers.unauthorized(), None),
    };
    let name = caller.name().to_owned();
    let context = Context { site, settings, public_url, caller, answers };
    let response = dispatch(&context, route, request).await;
    context.answers.dress(response, Some(&name))
}

/// The path with the collection that the host stands for, whether it was named by its other name or left out.
fn below_host_collection(settings: &AzureDevOps, path: &str) -> String {
    let Some(collection) = &settings.host_collection else { return path.to_owned() };
    let rest = path.strip_prefix("/DefaultCollection").unwrap_or(path);
    format!("/{collection}{rest}")
}

async fn dispatch(context: &Context<'_>, route: Route, request: Request) -> Response {
    if let Route::Api { collection, project, call } = &route
        && (request.method() == Method::GET || request.method() == Method::OPTIONS)
    {
        return calls::answer(
            context,
            collection.as_deref(),
            project.as_deref(),
            call,
            &request.into_parts().0,
        )
        .await;
    }
    match route {
        Route::Git { collection, project, repository, rest } => {
            let names = [collection.as_str(), project.as_str(), repository.as_str()];
            serve_git(context, names, &rest, request).await
        }
        Route::Page | Route::SignIn => respond(
            StatusCode::OK,
            "text/html; charset=utf-8",
            "<html><title>Azure DevOps Server</title></html>",
        ),
        Route::Api { .. } => context.answers.problem(
            StatusCode::METHOD_NOT_ALLOWED,
            "VssRequestMethodNotAllowedException",
            "The requested resource does not support this http method.",
        ),
    }
}

async fn serve_git(context: &Context<'_>, names: [&str; 3], rest: &[String], request: Request) -> Response {
    let rest = rest.iter().map(String::as_str).collect::<Vec<_>>();
    if let Some(wanted) = LfsRequest::from_segments(&rest) {
        return serve_lfs(context, names, wanted, request).await;
    }
    let Some(wanted) = GitRequest::from_segments(&rest) else {
        return context.answers.not_found_page();
    };
    if !context.caller.has_scope("vso.code") {
        return context.answers.scope_missing("vso.code");
    }
    let [collection, project, name] = names;
    match context.find_repository(collection, Some(project), name) {
        Some(repository) if !repository.disabled => {
            let directory = &repository.directory;
            git_service::serve(context.site, directory, wanted, context.caller.name(), request).await
        }
        // Git shows the user a plain text, and the server hides what may not be seen.
        _ => respond(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", answers::repository_not_found(name)),
    }
}

async fn serve_lfs(
    context: &Context<'_>,
    [collection, project, name]: [&str; 3],
    wanted: LfsRequest,
    request: Request,
) -> Response {
    if !context.caller.has_scope("vso.code") {
        return context.answers.scope_missing("vso.code");
    }
    // git-lfs puts the suffix behind every repository's name.
    let name = name.strip_suffix(".git").unwrap_or(name);
    match context.find_repository(collection, Some(project), name) {
        Some(repository) if !repository.disabled => {
            let Repository { collection, project, name, .. } = repository;
            let path = escape_path(&format!("{collection}/{project}/_git/{name}"));
            let objects = format!("{}/{path}/info/lfs/objects", context.public_url);
            lfs::serve(context.site, repository, wanted, &objects, request).await
        }
        _ => respond(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", answers::repository_not_found(name)),
    }
}

impl Context<'_> {
    /// The repositories of this server that the caller may read.
    fn readable(&self) -> impl Iterator<Item = &Repository> {
        self.site.world.repositories.iter().filter(|repository| {
            repository.provider == Provider::AzureDevOps
                && repository.readers.iter().any(|reader| reader == self.caller.name())
        })
    }

    /// Finds a readable repository by name or identifier; without a project only the identifier will do.
    fn find_repository(&self, collection: &str, project: Option<&str>, name: &str) -> Option<&Repository> {
        self.readable().find(|repository| {
            same(&repository.collection, collection)
                && match project {
                    Some(project) => {
                        is_project(repository, project)
                            && (same(&repository.name, name) || same(&calls::repository_id(repository), name))
                    }
                    None => same(&calls::repository_id(repository), name),
                }
        })
    }
}

fn is_project(repository: &Repository, project: &str) -> bool {
    same(&repository.project, project)
        || same(&calls::project_id(&repository.collection, &repository.project), project)
}

/// Names are compared without regard to case, as the real server does.
fn same(left: &str, right: &str) -> bool {
    left.to_lowercase() == right.to_lowercase()
}
