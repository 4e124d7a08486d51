//! The grammar of Azure DevOps Server's paths.

use crate::site::segments;

/// What a path means.
pub(super) enum Route {
    /// `[{collection}/[{project}/]]_apis/{call…}`
    Api {
        /// The collection, when the path names one.
        collection: Option<String>,
        /// The project, when the path names one.
        project: Option<String>,
        /// What follows `_apis`, keywords as they were spelled.
        call: Vec<String>,
    },
    /// `{collection}/[{project}/]_git/[_full|_optimized/]{repository}/{rest…}`
    Git {
        /// The collection.
        collection: String,
        /// The project; the repository's own name when the path names none.
        project: String,
        /// The repository.
        repository: String,
        /// What follows: `info/refs`, `git-upload-pack`, ….
        rest: Vec<String>,
    },
    /// `_signin`
    SignIn,
    /// Any page for people: the root, a collection, a project.
    Page,
}

impl Route {
    /// Reads a path; `None` when it is outside the base path or of no known form.
    pub(super) fn parse(base_path: &str, path: &str) -> Option<Self> {
        let head = path.get(..base_path.len())?;
        let below = &path[base_path.len()..];
        if !head.eq_ignore_ascii_case(base_path) || !(below.is_empty() || below.starts_with('/')) {
            return None;
        }
        let parts = segments(below)?;
        let keyword = parts.iter().position(|part| part.starts_with('_'));
        let Some(keyword) = keyword else {
            return (parts.len() <= 2).then_some(Self::Page);
        };
        let names = &parts[..keyword];
        let rest = parts[keyword + 1..].to_vec();
        match (parts[keyword].to_ascii_lowercase().as_str(), names) {
            ("_signin", []) => Some(Self::SignIn),
            ("_apis", []) => Some(Self::Api { collection: None, project: None, call: rest }),
            ("_apis", [collection]) => {
                Some(Self::Api { collection: Some(collection.clone()), project: None, call: rest })
            }
            ("_apis", [collection, project]) => Some(Self::Api {
                collection: Some(collection.clone()),
                project: Some(project.clone()),
                call: rest,
            }),
            ("_git", [collection]) => Self::git(collection, None, rest),
            ("_git", [collection, project]) => Self::git(collection, Some(project), rest),
            _ => None,
        }
    }

    fn git(collection: &str, project: Option<&String>, mut rest: Vec<String>) -> Option<Self> {
        if rest
            .first()
            .is_some_and(|part| ["_full", "_optimized"].contains(&part.to_ascii_lowercase().as_str()))
        {
            rest.remove(0);
        }
        if rest.is_empty() {
            return None;
        }
        let repository = rest.remove(0);
        let project = project.cloned().unwrap_or_else(|| repository.clone());
        Some(Self::Git { collection: collection.to_owned(), project, repository, rest })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::Route;

    fn git(base: &str, path: &str) -> Option<(String, String, String, String)> {
        match Route::parse(base, path)? {
            Route::Git { collection, project, repository, rest } => {
                Some((collection, project, repository, rest.join("/")))
            }
            _ => None,
        }
    }

    #[test]
    fn every_form_of_a_repository_path_is_read() {
        let web = |rest: &str| Some(("Coll".into(), "Shop".into(), "web".into(), rest.to_owned()));
        assert_eq!(git("/tfs", "/tfs/Coll/Shop/_git/web/info/refs"), web("info/refs"));
        assert_eq!(git("/tfs", "/TFS/Coll/Shop/_GIT/web/info/refs"), web("info/refs"));
        assert_eq!(git("", "/Coll/Shop/_git/_full/web/git-upload-pack"), web("git-upload-pack"));
        assert_eq!(git("", "/Coll/Shop/_git/_Optimized/web"), web(""));
        let own = Some(("Coll".into(), "web".into(), "web".into(), String::new()));
        assert_eq!(git("", "/Coll/_git/web"), own);
        let spaced = Some(("Coll".into(), "Büro Süd".into(), "a b".into(), String::new()));
        assert_eq!(git("", "/Coll/B%C3%BCro%20S%C3%BCd/_git/a%20b"), spaced);
    }

    #[test]
    fn a_path_outside_of_the_base_path_is_nothing() {
        assert!(Route::parse("/tfs", "/Coll/_git/web").is_none());
        assert!(Route::parse("/tfs", "/tfsx/Coll/_git/web").is_none());
        assert!(Route::parse("/tfs", "/t").is_none());
        assert!(Route::parse("", "/a/b/c").is_none());
    }
}
