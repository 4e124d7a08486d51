//! Behaves like GitLab: encoded project paths, a relative root, hidden 404s, and git beside the API.

mod access;
mod answers;
mod calls;
mod contents;

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::Response;

use self::access::{Access, Caller};
use crate::git_service::{self, GitRequest};
use crate::lfs::{self, LfsRequest};
use crate::site::{Site, empty, escape_path, respond, segments, set_header};
use crate::world::{Gitlab, Provider, Repository};

/// What every call needs to know about its request.
struct Context<'a> {
    site: &'a Site,
    settings: &'a Gitlab,
    /// How the server names itself, relative root included.
    public_url: String,
}

/// Answers one request to the GitLab.
pub(crate) async fn answer(site: &Site, settings: &Gitlab, request: Request) -> Response {
    let origin = site.origin(&request);
    let public_url =
        settings.public_url.clone().unwrap_or_else(|| format!("{origin}{}", settings.relative_root));
    let context = Context { site, settings, public_url };
    let mut response = dispatch(&context, request).await;
    set_header(&mut response, "server", "nginx");
    set_header(&mut response, "x-request-id", "01JSTANDIN0000000000000000");
    set_header(
        &mut response,
        "x-gitlab-meta",
        "{\"correlation_id\":\"01JSTANDIN0000000000000000\",\"version\":\"1\"}",
    );
    response
}

async fn dispatch(context: &Context<'_>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let root = context.settings.relative_root.as_str();
    if path == "/" && !root.is_empty() {
        return redirect(StatusCode::FOUND, &format!("{root}/"));
    }
    let Some(below) = path.strip_prefix(root).filter(|below| below.is_empty() || below.starts_with('/'))
    else {
        return answers::not_found_page();
    };
    if below == "/" || below.is_empty() {
        return redirect(StatusCode::FOUND, &format!("{}/users/sign_in", context.public_url));
    }
    if below == "/users/sign_in" {
        return respond(StatusCode::OK, "text/html; charset=utf-8", answers::SIGN_IN_HTML);
    }
    if below == "/oauth/token/info" {
        return calls::oauth_token(context, &request.into_parts().0);
    }
    if let Some(call) = below.strip_prefix("/api/v4/") {
        return calls::answer(context, call, &request.into_parts().0).await;
    }
    let Some(parts) = segments(below) else {
        return answers::not_found_page();
    };
    serve_git(context, &parts, request).await
}

/// What is wanted of a repository.
enum Wanted {
    Git(GitRequest),
    Lfs(LfsRequest),
}

impl Wanted {
    fn from_segments(rest: &[&str]) -> Option<Self> {
        LfsRequest::from_segments(rest)
            .map(Self::Lfs)
            .or_else(|| GitRequest::from_segments(rest).map(Self::Git))
    }
}

/// Finds `{path}[.git]/{request of git or LFS}` and serves it.
async fn serve_git(context: &Context<'_>, parts: &[String], request: Request) -> Response {
    let borrowed = parts.iter().map(String::as_str).collect::<Vec<_>>();
    let found = [4, 3, 2, 1].iter().find_map(|length| {
        let at = borrowed.len().checked_sub(*length)?;
        Some((at, Wanted::from_segments(&borrowed[at..])?))
    });
    let Some((at, wanted)) = found else {
        return answers::not_found_page();
    };
    let full = borrowed[..at].join("/");
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let Some(path) = full.strip_suffix(".git") else {
        // A path without the suffix is sent to the one with it; only reading the references can be redirected.
        if matches!(wanted, Wanted::Git(GitRequest::Advertisement)) && request.method() == Method::GET {
            let location = format!("{}/{}.git/info/refs{query}", context.public_url, escape_path(&full));
            return redirect(StatusCode::MOVED_PERMANENTLY, &location);
        }
        return answers::not_found_page();
    };
    let caller = match access::for_git(&context.site.world, request.headers()) {
        Access::Granted(caller) => caller,
        Access::TokenNeeded if context.settings.explains_passwords => {
            return answers::git_token_needed(&context.public_url);
        }
        _ => return answers::git_unauthorized(&context.public_url),
    };
    if let Some(repository) = context.moved(path).filter(|repository| caller.may_read(repository)) {
        let tail = borrowed[at..].join("/");
        let location = format!("{}/{}.git/{tail}{query}", context.public_url, escape_path(&repository.path));
        return redirect(StatusCode::MOVED_PERMANENTLY, &location);
    }
    let Some(repository) = context.find(path).filter(|repository| caller.may_read(repository)) else {
        return answers::git_hidden();
    };
    if !caller.has_any_scope(&["read_repository", "write_repository", "api"]) {
        return answers::git_forbidden("You are not allowed to download code from this project.");
    }
    if repository.disabled {
        return answers::git_forbidden("The repository of this project is disabled.");
    }
    match wanted {
        Wanted::Git(wanted) => {
            git_service::serve(context.site, &repository.directory, wanted, caller.name(), request).await
        }
        Wanted::Lfs(wanted) => {
            let path = escape_path(&repository.path);
            let objects = format!("{}/{path}.git/gitlab-lfs/objects", context.public_url);
            lfs::serve(context.site, repository, wanted, &objects, request).await
        }
    }
}

fn redirect(status: StatusCode, location: &str) -> Response {
    let mut response = empty(status);
    set_header(&mut response, "location", location);
    response
}

impl Context<'_> {
    /// All repositories of this server, with the number by which the API knows them.
    fn repositories(&self) -> impl Iterator<Item = (usize, &Repository)> {
        let world = &self.site.world;
        let own = world.repositories.iter().filter(|repository| repository.provider == Provider::Gitlab);
        own.enumerate().map(|(position, repository)| (position + 1, repository))
    }

    /// Paths are compared without regard to case, as the real server does.
    fn find(&self, path: &str) -> Option<&Repository> {
        let found = self.repositories().find(|(_, repository)| repository.path.eq_ignore_ascii_case(path));
        found.map(|(_, repository)| repository)
    }

    /// The repository that was moved away from this path.
    fn moved(&self, path: &str) -> Option<&Repository> {
        let was_here = |repository: &Repository| {
            repository.former_paths.iter().any(|former| former.eq_ignore_ascii_case(path))
        };
        self.repositories().map(|(_, repository)| repository).find(|repository| was_here(repository))
    }
}

impl Caller<'_> {
    fn may_read(&self, repository: &Repository) -> bool {
        repository.readers.iter().any(|reader| reader == self.name())
    }
}
