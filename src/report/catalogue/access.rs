//! What somebody who is signed in may see.

use super::Entry;
use crate::report::Stage;

pub(super) static SCOPE_MISSING: Entry = Entry {
    code: "scope_missing",
    stages: &[Stage::Authorize],
    cause: "The credential is valid but lacks a permission that is needed",
    remedies: &["Give the token the scope that is named, or the user the permission."],
    seen: "The server accepted the credential and then refused a call that the target needs (status 403, or a documented answer); missing_scopes of the report lists what is needed by the provider's own names.",
    why: "The token was made with too few scopes, or its user may not read code in this project.",
    on_azure_devops: "User settings → Personal access tokens → Edit → Scopes: Code (Read) is vso.code, Project and Team (Read) is vso.project. The user's right: Project settings → Repositories → Security → Read.",
    on_gitlab: "Scopes of a token cannot be changed: User settings → Access tokens → Add new token with read_repository and read_api. The user needs the role Reporter or more in the project (Manage → Members).",
    on_host: "",
};

pub(super) static PROJECT_NOT_FOUND_OR_DENIED: Entry = Entry {
    code: "project_not_found_or_denied",
    stages: &[Stage::Authorize],
    cause: "The project does not exist, or the credential's user may not see it; the server does not tell which",
    remedies: &[
        "Check the project's spelling.",
        "Sign in as the credential's user and open the project: if it shows, the token lacks a scope; if not, the user lacks access or it does not exist.",
    ],
    seen: "The server's not-found answer (404, TF200016, VS800075) for the project, to a credential that it accepted.",
    why: "Servers hide what somebody may not see behind the same answer as what is not there.",
    on_azure_devops: "Project settings → Permissions: the user must be in Readers or another group of the project; a rename of the project changes its URL.",
    on_gitlab: "Manage → Members of the group: the user, or the bot of the token, must be there.",
    on_host: "Spaces in names are %20 in URLs.",
};

pub(super) static REPOSITORY_NOT_FOUND_OR_DENIED: Entry = Entry {
    code: "repository_not_found_or_denied",
    stages: &[Stage::Repository],
    cause: "The repository does not exist, or the credential's user may not see it; the server does not tell which",
    remedies: &[
        "Check the repository's spelling.",
        "Sign in as the credential's user and open the repository: if it shows, the token lacks a scope; if not, the user lacks access or it does not exist.",
    ],
    seen: "The server's not-found answer (404, TF401019) for the repository, by its API or by git.",
    why: "The name is mistyped or was changed, or the user has no access: servers answer alike to both.",
    on_azure_devops: "Project settings → Repositories → the repository → Security: Read must be Allow for the user or a group of theirs.",
    on_gitlab: "The project's Manage → Members must have the user with Reporter or more; for a deploy key or token see Settings → Repository.",
    on_host: "Compare with the clone URL on the server's page, letter by letter.",
};

pub(super) static REPOSITORY_DISABLED: Entry = Entry {
    code: "repository_disabled",
    stages: &[Stage::Repository],
    cause: "The repository is disabled or in maintenance",
    remedies: &["Enable the repository in the project's settings."],
    seen: "The server's own field says so (isDisabled, or the repository's access level), or its documented answer does.",
    why: "Somebody switched the repository off instead of deleting it.",
    on_azure_devops: "Project settings → Repositories → the repository → Settings → Disable Repository: Off.",
    on_gitlab: "Settings → General → Visibility, project features, permissions → Repository; an archived project: Settings → General → Advanced → Unarchive.",
    on_host: "",
};

pub(super) static REPOSITORY_MOVED: Entry = Entry {
    code: "repository_moved",
    stages: &[Stage::Repository],
    cause: "The repository has moved",
    remedies: &["Use the new URL."],
    seen: "The server redirects the repository's URL to another one of its own; the summary names it. It is not followed, because the operator declared the old one.",
    why: "The project or its group was renamed or transferred.",
    on_azure_devops: "Copy the URL anew from Repos → Files → Clone.",
    on_gitlab: "The old path leads on only until another project takes it: change the URL now.",
    on_host: "Correct the URL in the task, and url in [servers.<name>] where it names the old path.",
};

pub(super) static REPOSITORY_EMPTY: Entry = Entry {
    code: "repository_empty",
    stages: &[Stage::References],
    cause: "The repository has no commits yet",
    remedies: &["Push a first commit."],
    seen: "Git listed the references, and there is none.",
    why: "The repository was just made. A test says so as a warning, because the connection is fine; a clone has nothing to take.",
    on_azure_devops: "Repos → Files → Initialize main branch with a README makes a first commit.",
    on_gitlab: "The project's page → README (or New file) makes a first commit.",
    on_host: "",
};

pub(super) static REFERENCE_NOT_FOUND: Entry = Entry {
    code: "reference_not_found",
    stages: &[Stage::References],
    cause: "The server has no such reference",
    remedies: &["Check the spelling of the branch, tag or commit."],
    seen: "The list of references that git gave has no such name; the remedies name near ones.",
    why: "The branch was deleted after its merge, upper and lower case differ, or the default branch is main and not master.",
    on_azure_devops: "Repos → Branches, and Tags, list what is there.",
    on_gitlab: "Code → Branches, and Tags, list what is there.",
    on_host: "",
};

pub(super) static REFERENCE_NOT_A_COMMIT: Entry = Entry {
    code: "reference_not_a_commit",
    stages: &[Stage::References],
    cause: "The reference leads to a tree or a file, which cannot be checked out",
    remedies: &["Ask for a branch, or for a tag of a commit."],
    seen: "The object that the reference names, and the object that a tag leads to, is a tree or a blob.",
    why: "Some repositories tag a single file, a public key for example, or a tree without history.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "Read such a file with `git cat-file -p TAG` in a clone that has all tags.",
};

pub(super) static DUMB_HTTP: Entry = Entry {
    code: "dumb_http",
    stages: &[Stage::Repository],
    cause: "The web server gives out the repository's files, and no git answers there",
    remedies: &[
        "Serve the repository with git's smart HTTP protocol: pass requests for it to `git http-backend` (CGI), or use SSH.",
    ],
    seen: "The answer to the request for git's list of references is the file info/refs of a repository: status 200, another content type than git's, and lines of an object and a reference.",
    why: "The repository was copied into the directory of a plain web server. Git itself can read that, slowly and without depth; Sortie does not.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "Compare with `curl -si URL/info/refs?service=git-upload-pack | head`: the content type has to be application/x-git-upload-pack-advertisement.",
};

pub(super) static GATEWAY_REFUSED: Entry = Entry {
    code: "gateway_refused",
    stages: &[Stage::Negotiate],
    cause: "The list of references was given out, and the request for the objects was refused right after it",
    remedies: &[
        "Have whatever is in front of the git server, a proxy or a web application firewall, pass POST requests to paths that end in /git-upload-pack.",
    ],
    seen: "The status of the answer to POST …/git-upload-pack, where GET …/info/refs had succeeded with the same credential just before. The facts have the headers Server and Via of whoever answered.",
    why: "A rule in front of the server lets pages be read and forbids POST, unknown content types, or bodies over a size.",
    on_azure_devops: "A web application firewall in front must pass POST to /_git unchanged.",
    on_gitlab: "Look at `location` blocks and client_max_body_size of a proxy in front of GitLab's own nginx.",
    on_host: "",
};
