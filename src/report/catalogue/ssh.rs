//! SSH: the server's key, the algorithms, and our key.

use super::Entry;
use crate::report::Stage;

pub(super) static HOST_KEY_UNKNOWN: Entry = Entry {
    code: "host_key_unknown",
    stages: &[Stage::HostKey],
    cause: "No known_hosts entry vouches for the key that the SSH server shows",
    remedies: &[
        "Compare the fingerprint with the one that the server's operator publishes, then pin it as host_keys of the server, or add the key to known_hosts_file (--known-hosts on the command line).",
    ],
    seen: "The key that the server showed, looked up by host and port in known_hosts_file, hashed entries included; facts carry its type and fingerprint. Nothing was sent to the server.",
    why: "Nobody has told this agent yet what this server's key is, or the entry is for another port ([host]:2222) or another name.",
    on_azure_devops: "Services publishes its fingerprints in its documentation of SSH, and at User settings → SSH public keys; on a server of your own they stand in Administration Console → Application Tier → SSH Service.",
    on_gitlab: "The fingerprints stand at https://HOST/help/instance_configuration.",
    on_host: "Collect the key with `ssh-keyscan -p PORT HOST >> /etc/sortie/known_hosts`, compare with `ssh-keygen -lf /etc/sortie/known_hosts`, and name the file as known_hosts_file in [servers.<name>]; host_keys = [\"SHA256:…\"] there pins the fingerprint alone.",
};

pub(super) static HOST_KEY_CHANGED: Entry = Entry {
    code: "host_key_changed",
    stages: &[Stage::HostKey],
    cause: "The SSH server shows another key than the known_hosts entry for it; nothing was sent to it",
    remedies: &[
        "Find out from the server's operator whether the key was changed. Only then replace the entry.",
        "If it was not changed, somebody else answers in the server's place.",
    ],
    seen: "The key that the server showed differs from the entry of the same type for this host and port, or the entry is marked as revoked; the summary has both fingerprints and the line.",
    why: "The server was installed anew, its key was rotated, the name leads to another machine now, or somebody intercepts the connection.",
    on_azure_devops: "Compare with Administration Console → Application Tier → SSH Service; for Services with its published fingerprints.",
    on_gitlab: "Compare with https://HOST/help/instance_configuration, or with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the server.",
    on_host: "Only once it is confirmed: `ssh-keygen -R '[HOST]:PORT' -f FILE` (HOST alone for port 22) removes the old entry, then add the new one.",
};

pub(super) static SSH_NO_COMMON_ALGORITHM: Entry = Entry {
    code: "ssh_no_common_algorithm",
    stages: &[Stage::HostKey],
    cause: "The SSH server and the agent have no algorithm in common",
    remedies: &[
        "Update the SSH server: algorithms that rest on SHA-1 are not used.",
        "Use HTTPS for this server.",
    ],
    seen: "The lists of key exchanges, host keys, ciphers and MACs that both sides offered do not meet.",
    why: "Old servers know only diffie-hellman-group14-sha1, ssh-rsa or ssh-dss, or a hardening allows a single algorithm that this side lacks.",
    on_azure_devops: "Azure DevOps Server 2019 and older offer SHA-1 alone without their last patches: install 2019.1.2 patch 4, 2020.1.2 patch 7, or 2022.",
    on_gitlab: "Look at KexAlgorithms, HostKeyAlgorithms, Ciphers and MACs in /etc/ssh/sshd_config of the server.",
    on_host: "Compare with `ssh -vv -p PORT HOST`, which lists what the server offers; or use the https URL with a token.",
};

pub(super) static NOT_SSH: Entry = Entry {
    code: "not_ssh",
    stages: &[Stage::HostKey],
    cause: "What answers on that port is not an SSH server",
    remedies: &["Check host and port of the SSH URL."],
    seen: "The answer does not begin with `SSH-2.0-`; the summary shows its first bytes.",
    why: "The port is that of another service, such as https; or SSH is switched off and a load balancer answers.",
    on_azure_devops: "Administration Console → Application Tier → SSH Service: look whether it is enabled and on which port; 22 is the default.",
    on_gitlab: "The clone URL on the project's page names the right host and port; gitlab_rails['gitlab_shell_ssh_port'] in /etc/gitlab/gitlab.rb sets it.",
    on_host: "Look what answers: `nc HOST PORT` shows the banner of an SSH server at once.",
};

pub(super) static SSH_KEY_REJECTED: Entry = Entry {
    code: "ssh_key_rejected",
    stages: &[Stage::Authenticate],
    cause: "The SSH server does not let the user in with this key",
    remedies: &[
        "Register the public key with the user at the server.",
        "Check the user name in the SSH URL (git, mostly).",
    ],
    seen: "The server refused the one key that was offered; facts carry the key's type and fingerprint and the methods that the server goes on to offer.",
    why: "The public key is not registered, was removed or has expired, or belongs to another server; or the SSH user of the URL is wrong. Where the summary says that the key was taken, the server asks for another factor besides, or the account is closed.",
    on_azure_devops: "User settings → SSH public keys → New Key; on Services also Organization settings → Policies → SSH authentication must be on.",
    on_gitlab: "User settings → SSH Keys, or the project's Settings → Repository → Deploy keys; the user in the URL is git.",
    on_host: "Compare fingerprints: `ssh-keygen -lf KEY` here with what the server lists. `ssh-keygen -y -f KEY` prints the public half to register.",
};

pub(super) static SSH_KEY_UNREADABLE: Entry = Entry {
    code: "ssh_key_unreadable",
    stages: &[Stage::Authenticate],
    cause: "The SSH key cannot be used",
    remedies: &["Give a private key in OpenSSH or PEM format that only the agent's user can read."],
    seen: "The file is missing, may be read by others, or its content is not a private key of a known format; the summary says which and what was found instead.",
    why: "The public half (.pub) was given, the key is PuTTY's (.ppk), the file was damaged while it was copied, or its mode is too open.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "`chmod 600 KEY` and `chown sortie KEY`. PuTTY's format: `puttygen KEY.ppk -O private-openssh -o KEY`. Any other: `ssh-keygen -p -f KEY` writes OpenSSH's format anew.",
};

pub(super) static SSH_KEY_PASSPHRASE: Entry = Entry {
    code: "ssh_key_passphrase",
    stages: &[Stage::Authenticate],
    cause: "The SSH key is encrypted, and the passphrase is missing or wrong",
    remedies: &[
        "Give the passphrase: passphrase = { file = … } in the configuration, --passphrase-file on the command line.",
    ],
    seen: "The key's own header says that it is encrypted, and no passphrase was given, or the one given does not open it.",
    why: "The key was made for a person, who types the passphrase; a service needs it from a file or from systemd.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "Try the passphrase: `ssh-keygen -y -f KEY`. Or make a key of the agent's own without one: `ssh-keygen -t rsa -b 4096 -N '' -f KEY`.",
};

pub(super) static SSH_KEY_TYPE_UNSUPPORTED: Entry = Entry {
    code: "ssh_key_type_unsupported",
    stages: &[Stage::Authenticate],
    cause: "The server does not take keys of this type",
    remedies: &["Use an RSA key of 3072 bits or more for Azure DevOps."],
    seen: "The type of the key, compared with what the server is known to take or refused; or a type that cannot be used without a person, such as a security key.",
    why: "Azure DevOps takes RSA keys alone. Keys on security tokens want a touch that nobody is there to give.",
    on_azure_devops: "Make one with `ssh-keygen -t rsa -b 4096` and register its public half at User settings → SSH public keys.",
    on_gitlab: "Admin area → Settings → General → Visibility and access controls lists the types that are allowed.",
    on_host: "`ssh-keygen -lf KEY` names the type of a key.",
};

pub(super) static SSH_RSA_SHA2_NOT_ANNOUNCED: Entry = Entry {
    code: "ssh_rsa_sha2_not_announced",
    stages: &[Stage::Authenticate],
    cause: "The server does not announce rsa-sha2 signatures, so an RSA key cannot be used",
    remedies: &["Install the server's patches, or use HTTPS with a token."],
    seen: "The server did not announce rsa-sha2-256 or rsa-sha2-512 (the extension server-sig-algs) and refused the RSA key.",
    why: "The server knows RSA only with SHA-1, which is broken and which clients have given up.",
    on_azure_devops: "Install 2019.1.2 patch 4, 2020.1.2 patch 7, or 2022; until then use the https URL with a personal access token.",
    on_gitlab: "Update the server's OpenSSH, or use an ed25519 key.",
    on_host: "",
};

pub(super) static HOST_KEY_RSA_ONLY: Entry = Entry {
    code: "host_key_rsa_only",
    stages: &[Stage::HostKey],
    cause: "The SSH server has only an RSA host key",
    remedies: &["Add an ed25519 host key to the server."],
    seen: "Of the types of host keys that the server offered, all are RSA.",
    why: "The server is old or was set up long ago. RSA with SHA-2 still holds; newer keys are smaller and harder to get wrong.",
    on_azure_devops: "Nothing can be done: Azure DevOps has an RSA host key alone.",
    on_gitlab: "Run `ssh-keygen -A` on the server and look at the HostKey lines of /etc/ssh/sshd_config.",
    on_host: "Keep the RSA entry in known_hosts_file when the new key is added, until the server has dropped it.",
};
