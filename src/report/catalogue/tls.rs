//! TLS, from the first byte to the verdict on the certificate.

use super::Entry;
use crate::report::Stage;

pub(super) static NOT_TLS: Entry = Entry {
    code: "not_tls",
    stages: &[Stage::Proxy, Stage::Tls],
    cause: "What answers on that port does not speak TLS",
    remedies: &[
        "Check the port in the URL; https usually listens on 443.",
        "If the server really has no TLS, put TLS in front of it.",
    ],
    seen: "The first bytes of the answer are no TLS record; the summary shows them. `HTTP/1.1 400` is plain HTTP, `SSH-2.0` is an SSH server.",
    why: "The URL says https and the port is the one for plain http (80, 8080), or another service listens there.",
    on_azure_devops: "IIS Manager → Azure DevOps Server → Bindings: look which port has the type https; 8080 is plain http by default.",
    on_gitlab: "external_url in /etc/gitlab/gitlab.rb must begin with https://; where a load balancer ends TLS, use its port and not GitLab's.",
    on_host: "Look what answers: `openssl s_client -connect HOST:PORT`.",
};

pub(super) static TLS_UNTRUSTED_ISSUER: Entry = Entry {
    code: "tls_untrusted_issuer",
    stages: &[Stage::Proxy, Stage::Tls],
    cause: "The server's certificate comes from an authority that this host does not trust",
    remedies: &[
        "Give the authority's certificate as ca_file of the server (--ca-file on the command line), or install it among the host's trusted roots.",
        "Compare the fingerprint with the one that the server's operator names before you trust it.",
    ],
    seen: "The chain as the server sent it, verified against the platform's roots and ca_file; facts carry subject, issuer, names, dates and fingerprint of each certificate.",
    why: "Internal servers have certificates of the company's own authority, which browsers know through Windows' policies and this host does not. Self-signed certificates end up here as well.",
    on_azure_devops: "The authority is the issuer in IIS Manager → Server Certificates → View → Certification Path; export the topmost one as Base-64 (.CER).",
    on_gitlab: "For a self-signed certificate the file is /etc/gitlab/ssl/HOST.crt on the server; otherwise ask for the root of the authority that issued it.",
    on_host: "Set ca_file in [servers.<name>] to a PEM file; or for all programs: copy it to /usr/local/share/ca-certificates/NAME.crt and run update-ca-certificates (Debian, Ubuntu), or to /etc/pki/ca-trust/source/anchors and run update-ca-trust (Red Hat).",
};

pub(super) static TLS_INTERCEPTED: Entry = Entry {
    code: "tls_intercepted",
    stages: &[Stage::Tls],
    cause: "A device on the way opens TLS connections and presents a certificate of its own",
    remedies: &[
        "Add the inspection authority's certificate as ca_file, or have this host exempted from inspection.",
    ],
    seen: "The chain ends in an unknown authority whose name is that of an inspection product, or the chain through the proxy differs from the one without it; facts name the issuer and the fingerprints.",
    why: "Many companies decrypt outgoing TLS on a proxy or firewall and sign anew with an authority of their own, which managed desktops trust and servers were never given.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "Best: ask the network team to bypass inspection for this server. Otherwise get the inspection root from them, compare its fingerprint, and set it as ca_file in [servers.<name>] or install it with update-ca-certificates.",
};

pub(super) static TLS_INCOMPLETE_CHAIN: Entry = Entry {
    code: "tls_incomplete_chain",
    stages: &[Stage::Proxy, Stage::Tls],
    cause: "The server sends its certificate without the intermediate one that links it to a root",
    remedies: &[
        "Install the full chain on the server.",
        "Until then, give the intermediate certificate as ca_file.",
    ],
    seen: "One certificate came alone, is not self-signed, and names where its issuer's certificate can be had (AIA). Nothing is fetched from there.",
    why: "Browsers on Windows fetch or remember intermediates, so the fault does not show there. Other programs cannot connect.",
    on_azure_devops: "Import the intermediate into Local Computer → Intermediate Certification Authorities on the server, choose the certificate again in IIS Manager → Bindings → https, and run iisreset.",
    on_gitlab: "Put the server's certificate and after it the intermediates into /etc/gitlab/ssl/HOST.crt, then run `gitlab-ctl hup nginx`.",
    on_host: "Set ca_file in [servers.<name>] to a PEM file with the intermediate certificate, until the server is mended.",
};

pub(super) static TLS_EXPIRED: Entry = Entry {
    code: "tls_expired",
    stages: &[Stage::Proxy, Stage::Tls],
    cause: "The server's certificate has expired",
    remedies: &[
        "Renew the certificate on the server.",
        "If the dates look right, correct the clock of the agent's host.",
    ],
    seen: "The certificate's last day, compared with this host's clock; both stand in the summary or the facts.",
    why: "Nobody renewed it, or it was renewed and the server still serves the old one because it was not restarted.",
    on_azure_devops: "Import the new certificate (IIS Manager → Server Certificates) and choose it in Bindings → https of the site.",
    on_gitlab: "Replace /etc/gitlab/ssl/HOST.crt and run `gitlab-ctl hup nginx`; with Let's Encrypt run `gitlab-ctl renew-le-certs`.",
    on_host: "Ask `timedatectl` whether the clock is synchronized.",
};

pub(super) static TLS_NOT_YET_VALID: Entry = Entry {
    code: "tls_not_yet_valid",
    stages: &[Stage::Proxy, Stage::Tls],
    cause: "The server's certificate is not valid yet",
    remedies: &["Correct the clock of the agent's host, or the certificate of the server."],
    seen: "The certificate's first day, compared with this host's clock.",
    why: "This host's clock is behind, mostly: after a restored snapshot, or where no time server can be reached. Rarely the certificate was made ahead of its time.",
    on_azure_devops: "Look at the dates in IIS Manager → Server Certificates; choose the certificate that is valid today in Bindings → https.",
    on_gitlab: "Look at the dates: `openssl x509 -noout -dates -in /etc/gitlab/ssl/HOST.crt`.",
    on_host: "Run `timedatectl`; name a time server that this network allows in /etc/systemd/timesyncd.conf or in chrony's configuration.",
};

pub(super) static TLS_NAME_MISMATCH: Entry = Entry {
    code: "tls_name_mismatch",
    stages: &[Stage::Proxy, Stage::Tls],
    cause: "The server's certificate is made out to other names",
    remedies: &[
        "Use one of the certificate's names in the URL, or have the certificate issued for the name in use.",
    ],
    seen: "The host of the URL is in none of the certificate's names (subject alternative names); the summary lists them.",
    why: "The server is reached by a short name, an alias or an address that its certificate lacks, or a default site answers in its place.",
    on_azure_devops: "Use the host of the Public URL (Administration Console → Application Tier); where several sites share the port, set the host name and Require Server Name Indication in IIS Manager → Bindings.",
    on_gitlab: "Use the host of external_url in /etc/gitlab/gitlab.rb; the certificate at /etc/gitlab/ssl/HOST.crt must have it as a subject alternative name.",
    on_host: "Correct url in [servers.<name>], or /etc/hosts where it leads the name to another server.",
};

pub(super) static TLS_LEGACY_ONLY: Entry = Entry {
    code: "tls_legacy_only",
    stages: &[Stage::Proxy, Stage::Tls],
    cause: "The server and the agent have no TLS version or cipher suite in common",
    remedies: &[
        "Enable TLS 1.2 or newer with ECDHE and AES-GCM on the server (on Windows: the Schannel settings).",
    ],
    seen: "The server refused the handshake with an alert, or answered with a version below 1.2. Offered were TLS 1.3 and 1.2 with ECDHE and AES-GCM or ChaCha20.",
    why: "Old Windows releases and hardened-long-ago load balancers still know only TLS 1.0 and 1.1, or suites with RSA key exchange and CBC.",
    on_azure_devops: "On the Windows server set Enabled = 1 and DisabledByDefault = 0 below HKLM\\SYSTEM\\CurrentControlSet\\Control\\SecurityProviders\\SCHANNEL\\Protocols\\TLS 1.2\\Server, allow TLS_ECDHE_…_AES_…_GCM suites (Group Policy: SSL Cipher Suite Order), and restart it.",
    on_gitlab: "Remove nginx['ssl_protocols'] and nginx['ssl_ciphers'] from /etc/gitlab/gitlab.rb, whose defaults are good, and run gitlab-ctl reconfigure.",
    on_host: "Look what the server takes: `openssl s_client -connect HOST:PORT -tls1_2`. A load balancer in front has settings of its own.",
};

pub(super) static TLS_CLIENT_CERTIFICATE_REQUIRED: Entry = Entry {
    code: "tls_client_certificate_required",
    stages: &[Stage::Proxy, Stage::Tls],
    cause: "The server demands a client certificate",
    remedies: &[
        "Give one: client_cert_file and client_key_file of the server in the configuration.",
        "Or use a way to the server that needs none, or have the server's operator exempt this host.",
    ],
    seen: "The server asked for a certificate in the handshake and then refused: by an alert, which comes only after the handshake in TLS 1.3, or by a status of its own.",
    why: "A gateway in front of the server, or the site itself, admits only clients with a certificate of the company's authority.",
    on_azure_devops: "IIS Manager → Azure DevOps Server → SSL Settings → Client certificates: Ignore or Accept instead of Require.",
    on_gitlab: "Look at nginx['ssl_verify_client'] in /etc/gitlab/gitlab.rb, and at the proxy in front of GitLab.",
    on_host: "Have a client certificate issued for this host, and set client_cert_file and client_key_file (PEM, key with mode 0600) in [servers.<name>].",
};
