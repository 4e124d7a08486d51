//! What only a clone and the reading of files can meet.

use super::{CLONE, Entry};
use crate::report::Stage;

pub(super) static TOO_LARGE: Entry = Entry {
    code: "too_large",
    stages: CLONE,
    cause: "The repository is over a limit of this agent",
    remedies: &[
        "Raise the limit in [limits] of the agent's configuration, or ask for less: a depth, for example.",
    ],
    seen: "Bytes, objects, files or one file, counted while they came, compared with [limits]; or a limit that is fixed, which the summary names.",
    why: "The repository is larger than the operator wants on this host, or somebody committed large files.",
    on_azure_devops: "Move large files to Git LFS (`git lfs migrate`).",
    on_gitlab: "Settings → Usage Quotas shows the size; move large files to Git LFS.",
    on_host: "Raise the limit that is named in [limits] of /etc/sortie/config.toml, if the disk allows.",
};

pub(super) static PACK_CORRUPT: Entry = Entry {
    code: "pack_corrupt",
    stages: &[Stage::Receive, Stage::Index],
    cause: "The data that the server sent is damaged",
    remedies: &[
        "Try again; if it stays, run git fsck on the server's repository and look for a proxy that alters answers.",
    ],
    seen: "A checksum or the structure of the pack is wrong.",
    why: "The transfer was cut or changed on the way, or the repository on the server is damaged.",
    on_azure_devops: "Ask for the health of the data tier; a push of a fresh mirror into a new repository mends a damaged one.",
    on_gitlab: "Run `gitlab-rake gitlab:git:fsck` on the server.",
    on_host: "",
};

pub(super) static TARGET_NOT_EMPTY: Entry = Entry {
    code: "target_not_empty",
    stages: CLONE,
    cause: "The target directory exists and holds something; it was left untouched",
    remedies: &["Name a directory that is empty or does not exist."],
    seen: "The target directory has at least one entry.",
    why: "An earlier clone lies there, or another directory was meant.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "Name another directory, or remove what is there.",
};

pub(super) static DISK_FULL: Entry = Entry {
    code: "disk_full",
    stages: CLONE,
    cause: "The disk is full; nothing was left behind",
    remedies: &["Free space on the file system of the target, or choose another one."],
    seen: "The system answered that no space, no quota or no inode is left, or that a file may not be that large (ENOSPC, EDQUOT, EFBIG).",
    why: "Workspaces of earlier tasks add up, or the repository is larger than the disk.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "`df -h` and `df -i` on the directory; remove old ones below /var/lib/sortie/workspaces.",
};

pub(super) static UNSAFE_PATH: Entry = Entry {
    code: "unsafe_path",
    stages: &[Stage::Checkout],
    cause: "The repository holds a path that must not be written",
    remedies: &["Look at the commit that brought the path in: it may be an attack."],
    seen: "An entry of the tree would be written outside of the target or into .git; the summary names it.",
    why: "Somebody crafted the tree, or a tool wrote it wrongly. Git itself refuses such trees in newer versions.",
    on_azure_devops: "Repos → Commits shows who pushed it.",
    on_gitlab: "Code → Commits shows who pushed it.",
    on_host: "",
};

pub(super) static PATH_NOT_FOUND: Entry = Entry {
    code: "path_not_found",
    stages: &[Stage::Checkout],
    cause: "None of the paths that the task names is in the commit",
    remedies: &[
        "Look at the spelling, with upper and lower case, and whether the reference is the right one.",
    ],
    seen: "Each path of the task was looked up in the commit's tree; the summary names the first, the remedies what is like it.",
    why: "A path is misspelled, was moved or removed, or is on another branch. Paths begin at the root of the repository and have no wildcards.",
    on_azure_devops: "Repos → Files, with the branch chosen above, shows what is there.",
    on_gitlab: "Code → Repository, with the branch chosen above, shows what is there.",
    on_host: "",
};

pub(super) static SUBMODULE_NOT_ALLOWED: Entry = Entry {
    code: "submodule_not_allowed",
    stages: &[Stage::Checkout],
    cause: "A submodule lies outside of what the operator allows",
    remedies: &[
        "Declare the submodule's server, or leave the submodule out: name those that are needed, or set \
         skip_refused_submodules (--skip-refused-submodules).",
    ],
    seen: "The URL in .gitmodules, made whole where it is relative and judged by the same policy as the task's own URL; \
           the summary names it with the submodule's path. It is a warning where the task says so, and the submodule is \
           left out.",
    why: "A repository's content must not be able to lead the agent to other servers.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "Add [servers.<name>] for the submodule's server in /etc/sortie/config.toml.",
};

pub(super) static LFS_FAILED: Entry = Entry {
    code: "lfs_failed",
    stages: &[Stage::Checkout],
    cause: "An object of Git LFS could not be had",
    remedies: &[
        "Check that the object exists in the server's LFS store, and that the credential may read it.",
        "Clone without LFS: the files stay pointers.",
    ],
    seen: "The answer of the batch API for the repository, or for the object that is named with its path; or the bytes \
           and the SHA-256 of what came, compared with the pointer. Only the declared server is asked, whatever \
           .lfsconfig says, and a download that it says is at another place is not followed.",
    why: "The object was never pushed (`git lfs push --all`), LFS is off for the repository, the server sends its clients \
          on to an object store, or an SSH key is all there is: LFS goes over HTTPS.",
    on_azure_devops: "Use the https URL, or name a token by api_credential in [servers.<name>], or --api-pat-file: LFS does not work over SSH there.",
    on_gitlab: "Settings → General → Visibility, project features, permissions → Git Large File Storage; with an object store also proxy_download for lfs.",
    on_host: "For SSH remotes, set api_credential in [servers.<name>], or --api-pat-file, to a token that may read the repository.",
};

pub(super) static DELIVERY_FAILED: Entry = Entry {
    code: "delivery_failed",
    stages: &[Stage::Deliver],
    cause: "The result could not be delivered",
    remedies: &["Check the target's permissions and space, or the control plane's log."],
    seen: "The system's answer when the result was moved to its target, or the control plane's answer to the upload; a line that is cut is taken up again until the deadline.",
    why: "The agent's user may not write there; or the control plane refused the artifact, has no room for it, or was out of reach for too long.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "Look at the owner and mode of the target directory, and at ReadWritePaths in `systemctl cat sortie`.",
};
