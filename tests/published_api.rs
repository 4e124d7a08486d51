//! Every call of the API that a task makes is one that the provider has published: its method, its route
//! and each of its parameters stand in the tables below.

use percent_encoding::percent_decode_str;
use sortie::credential::CredentialKind;
use stand_ins::{AzureDevOps, Gitlab, RecordedRequest, Release};

use crate::connection_test::Lab;
use crate::trial::Trial;

/// A published call: method, route below the collection or below `/api/v4`, and the parameters of its query.
/// `{name}` stands for one segment.
type Call = (&'static str, &'static str, &'static [&'static str]);

/// From Microsoft's OpenAPI documents for Azure DevOps (the repository `vsts-rest-api-specs`: `core`, `git`,
/// `security` and `hooks`, 5.0 to 7.2), and from its client for Python where a route is not part of these
/// (`connectionData`, and `OPTIONS` for the list of routes).
const AZURE_DEVOPS: [Call; 14] = [
    ("GET", "_apis/connectionData", &["connectOptions", "lastChangeId", "lastChangeId64", "api-version"]),
    ("OPTIONS", "_apis", &["api-version"]),
    ("OPTIONS", "_apis/{area}", &["api-version"]),
    ("GET", "_apis/projectCollections", &["$top", "$skip", "api-version"]),
    (
        "GET",
        "_apis/projects",
        &["stateFilter", "$top", "$skip", "continuationToken", "getDefaultTeamImageUrl", "api-version"],
    ),
    ("GET", "_apis/projects/{projectId}", &["includeCapabilities", "includeHistory", "api-version"]),
    ("GET", "_apis/git/repositories", &["includeLinks", "includeAllUrls", "includeHidden", "api-version"]),
    (
        "GET",
        "{project}/_apis/git/repositories",
        &["includeLinks", "includeAllUrls", "includeHidden", "api-version"],
    ),
    ("GET", "{project}/_apis/git/repositories/{repositoryId}", &["api-version"]),
    (
        "GET",
        "{project}/_apis/git/repositories/{repositoryId}/items",
        &[
            "path",
            "scopePath",
            "recursionLevel",
            "includeContentMetadata",
            "latestProcessedChange",
            "download",
            "versionDescriptor.versionOptions",
            "versionDescriptor.version",
            "versionDescriptor.versionType",
            "includeContent",
            "resolveLfs",
            "api-version",
        ],
    ),
    (
        "GET",
        "{project}/_apis/git/repositories/{repositoryId}/trees/{sha1}",
        &["projectId", "recursive", "fileName", "$format", "api-version"],
    ),
    (
        "GET",
        "{project}/_apis/git/repositories/{repositoryId}/blobs/{sha1}",
        &["download", "fileName", "$format", "resolveLfs", "api-version"],
    ),
    (
        "GET",
        "_apis/permissions/{securityNamespaceId}/{permissions}",
        &["tokens", "alwaysAllowAdministrators", "delimiter", "api-version"],
    ),
    (
        "GET",
        "_apis/hooks/subscriptions",
        &["publisherId", "eventType", "consumerId", "consumerActionId", "api-version"],
    ),
];

/// From GitLab's documentation of its REST API and the OpenAPI document beside it (`doc/api` in its repository).
const GITLAB: [Call; 11] = [
    ("GET", "version", &[]),
    ("GET", "metadata", &[]),
    ("GET", "user", &[]),
    ("GET", "personal_access_tokens/self", &[]),
    (
        "GET",
        "projects",
        &[
            "archived",
            "membership",
            "min_access_level",
            "order_by",
            "page",
            "per_page",
            "search",
            "search_namespaces",
            "simple",
            "sort",
        ],
    ),
    ("GET", "projects/{id}", &["license", "statistics", "with_custom_attributes"]),
    (
        "GET",
        "projects/{id}/repository/tree",
        &["page", "page_token", "pagination", "path", "per_page", "recursive", "ref"],
    ),
    ("GET", "projects/{id}/repository/blobs/{sha}/raw", &[]),
    ("GET", "groups", &["all_available", "order_by", "page", "per_page", "search", "sort"]),
    ("GET", "groups/{id}", &["with_custom_attributes", "with_projects"]),
    (
        "GET",
        "groups/{id}/projects",
        &[
            "archived",
            "include_subgroups",
            "order_by",
            "page",
            "per_page",
            "search",
            "simple",
            "sort",
            "with_shared",
        ],
    ),
];

/// The route of a call of Azure DevOps: what follows the collection. A project alone may stand in front.
fn azure_route(path: &str) -> Option<String> {
    let (head, call) = path.split_once("/_apis").map(|(head, call)| (head, format!("_apis{call}")))?;
    // Whatever could be a collection is asked whether it is one, below a virtual directory too.
    if call.starts_with("_apis/connectionData") {
        return Some(call);
    }
    let names: Vec<&str> = head.split('/').filter(|name| !name.is_empty() && *name != "tfs").collect();
    Some(names.get(1).map_or(call.clone(), |project| format!("{project}/{call}")))
}

fn gitlab_route(path: &str) -> Option<String> {
    path.split_once("/api/v4/").map(|(_, call)| call.to_owned())
}

/// Why a request is none of the published calls.
fn strangeness(request: &RecordedRequest, route: &str, calls: &[Call]) -> Option<String> {
    let (path, query) = route.split_once('?').unwrap_or((route, ""));
    let fits = |template: &str| {
        let (wanted, found): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
        let fits_one = |(wanted, found): (&&str, &&str)| {
            (wanted.starts_with('{') && !found.starts_with('_')) || wanted.eq_ignore_ascii_case(found)
        };
        wanted.len() == found.len() && wanted.iter().zip(&found).all(fits_one)
    };
    let known = calls.iter().find(|(method, template, _)| *method == request.method && fits(template));
    let Some((_, _, parameters)) = known else { return Some(format!("no such call: {route}")) };
    let names = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        percent_decode_str(name).decode_utf8_lossy().into_owned()
    });
    let mut strange = names.filter(|name| !parameters.contains(&name.as_str()));
    strange.next().map(|name| format!("no such parameter of {path}: {name}"))
}

fn check(requests: &[RecordedRequest], route: fn(&str) -> Option<String>, calls: &[Call]) -> Vec<String> {
    let mut made = Vec::new();
    for request in requests {
        let Some(route) = route(&request.path) else { continue };
        assert_eq!(strangeness(request, &route, calls), None, "{request:?}");
        made.push(format!("{} {}", request.method, route.split('?').next().unwrap_or_default()));
    }
    made.sort();
    made.dedup();
    made
}

async fn run_all(trials: Vec<Trial>) {
    for trial in trials {
        Box::pin(trial.run()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_azure_devops_is_asked_for_is_published() {
    let mut made = Vec::new();
    for release in [Release::V2019, Release::V2022Update1] {
        let lab = Lab::with(AzureDevOps { release, ..AzureDevOps::default() }, Gitlab::default());
        let paths =
            ["/Coll/My%20Shop/_git/web", "/Coll/My%20Shop", "/Coll", "/Coll/Nope/_git/web", "/Nope/x/_git/y"];
        let mut trials: Vec<_> = paths.iter().map(|path| lab.on_azure(path)).collect();
        trials.push(lab.on_azure("/Coll/My%20Shop/_git/nope"));
        trials.push(lab.on_azure("/Coll").reading("tools"));
        trials.push(lab.on_azure("/Coll/My%20Shop/_git/web").pat("azure-code-only"));
        trials.push(lab.on_azure("/Coll/My%20Shop/_git/web").pat("unknown"));
        run_all(trials).await;
        let files = Box::pin(lab.on_azure("/Coll/My%20Shop/_git/web").files(None, &["README.md"])).await;
        assert_eq!(files.0["source"], "api", "{:#}", files.0);
        made.extend(check(&lab.azure().requests(), azure_route, &AZURE_DEVOPS));
    }
    assert!(made.len() >= 10, "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_gitlab_is_asked_for_is_published() {
    let mut made = Vec::new();
    for (root, version) in [("", "17.3.1"), ("/gitlab", "14.9.0")] {
        let settings = Gitlab { relative_root: root.into(), version: version.into(), ..Gitlab::default() };
        let lab = Lab::with(AzureDevOps::default(), settings);
        let paths = ["/shop/sub/web", "/shop", "/shop/empty.git", "/old/web", "/shop/nope", "/nope"];
        let mut trials: Vec<_> = paths.iter().map(|path| lab.on_gitlab(path)).collect();
        trials.push(lab.on_gitlab("").by_server(None, None));
        trials.push(lab.on_gitlab("/shop/sub").reading("web"));
        trials.push(lab.on_gitlab("/shop/sub/web").pat("glpat-git-only"));
        trials.push(lab.on_gitlab("/shop/sub/web").pat("unknown"));
        let oauth = lab.on_gitlab("/shop/sub/web");
        trials.push(oauth.secret(CredentialKind::Bearer, None, "oauth-canary-token"));
        let mut unnamed = lab.on_gitlab("/shop/sub/web");
        unnamed.server.provider = None;
        trials.push(unnamed);
        run_all(trials).await;
        let files = Box::pin(lab.on_gitlab("/shop/sub/web").files(None, &["README.md"])).await;
        assert_eq!(files.0["source"], "api", "{:#}", files.0);
        made.extend(check(&lab.gitlab().requests(), gitlab_route, &GITLAB));
    }
    assert!(made.len() >= 10, "{made:?}");
}

#[test]
fn what_is_not_published_is_found() {
    let request = |method: &str, path: &str| RecordedRequest {
        method: method.into(),
        path: path.into(),
        has_authorization: true,
        authorization_scheme: None,
    };
    let azure = |method, path| {
        strangeness(&request(method, path), &azure_route(path).expect("a call"), &AZURE_DEVOPS)
    };
    assert_eq!(azure("GET", "/tfs/Coll/_apis/projects?%24top=1&api-version=7.1"), None);
    assert_eq!(azure("GET", "/Coll/My%20Shop/_apis/git/repositories/web?api-version=7.1"), None);
    assert!(azure("POST", "/Coll/_apis/projects").is_some());
    assert!(azure("GET", "/Coll/_apis/projects?limit=1").is_some_and(|why| why.contains("limit")));
    assert!(azure("GET", "/Coll/_apis/git/repos").is_some());
    let path = "/api/v4/projects/shop%2Fweb/secrets";
    assert!(strangeness(&request("GET", path), &gitlab_route(path).expect("a call"), &GITLAB).is_some());
}
