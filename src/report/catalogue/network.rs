//! The way to the server, up to an open connection.

use super::Entry;
use crate::report::Stage;

pub(super) static ADDRESS_NOT_ALLOWED: Entry = Entry {
    code: "address_not_allowed",
    stages: &[Stage::Resolve],
    cause: "The name leads to an address that this agent must not connect to",
    remedies: &[
        "Correct the name's record in DNS or in the hosts file of the agent's host.",
        "Where a loopback address is meant, declare the server with a loopback host or with allow_loopback = true.",
    ],
    seen: "Every address that the name resolved to, judged one by one. Refused are loopback addresses, link-local ones, metadata services of cloud providers, and ranges that gateways translate (Teredo, NAT64 with a prefix of the network's own). Addresses that wrap an IPv4 address are judged by that address. The fact refused_addresses lists them.",
    why: "A name that suddenly leads to this host itself or to a cloud's metadata service is how a foreign DNS record reaches into a network.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "Compare `getent ahosts NAME` with what the name should be; look into /etc/hosts. Set allow_loopback = true in [servers.<name>] where the server runs on this very host.",
};

pub(super) static NAME_NOT_FOUND: Entry = Entry {
    code: "name_not_found",
    stages: &[Stage::Resolve],
    cause: "The host name does not exist for the agent's resolver",
    remedies: &[
        "Check the spelling of the host.",
        "Look the name up on the agent's host with `getent hosts NAME`; an internal name may need the company's resolver or VPN.",
    ],
    seen: "The system's resolver answered that there is no such name.",
    why: "The name is mistyped, it is known only to the company's own DNS which this host does not ask, or its domain is missing from the search list.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "Look at /etc/resolv.conf or `resolvectl status`; ask for a resolver that knows the internal zone, or write the name into /etc/hosts. Where a proxy looks names up, set proxy for the server: then no lookup is needed here.",
};

pub(super) static RESOLVER_FAILED: Entry = Entry {
    code: "resolver_failed",
    stages: &[Stage::Resolve],
    cause: "The resolver did not answer or answered with an error",
    remedies: &[
        "Check the resolver of the agent's host (/etc/resolv.conf, resolvectl status) and try again.",
    ],
    seen: "The system's resolver gave an error other than that the name does not exist, or no answer in time.",
    why: "The DNS server that this host asks is down, unreachable, or refuses to answer this host.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "Ask each nameserver of /etc/resolv.conf itself: `dig @ADDRESS NAME`. In a container, look at the DNS settings of the container or pod; in the unit, at IPAddressDeny.",
};

pub(super) static PROXY_UNREACHABLE: Entry = Entry {
    code: "proxy_unreachable",
    stages: &[Stage::Proxy],
    cause: "The proxy did not accept a connection",
    remedies: &[
        "Check the proxy's host and port in the configuration or in HTTPS_PROXY, and that the agent's host may reach it.",
    ],
    seen: "The lookup of the proxy's name and the connection to it; the facts name the proxy, its addresses and how each attempt ended. Also a proxy setting that cannot be read.",
    why: "The proxy moved, its port is another one, or a firewall keeps this host from it.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "Set proxy = \"http://host:port\" (or https://, socks5://, as the proxy speaks) in [servers.<name>], or proxy = \"none\" where the server can be reached directly. For the service, `systemctl edit sortie` with [Service] Environment=HTTPS_PROXY=http://host:port.",
};

pub(super) static PROXY_AUTH_REQUIRED: Entry = Entry {
    code: "proxy_auth_required",
    stages: &[Stage::Proxy],
    cause: "The proxy demands authentication that it was not given or did not accept",
    remedies: &[
        "Give the proxy's user and password: proxy_auth in the configuration, --proxy-auth-file on the command line, or user:password in HTTPS_PROXY.",
        "Or let the proxy pass this host without authentication, or name the host in NO_PROXY where it can be reached directly.",
    ],
    seen: "Status 407 to CONNECT, or SOCKS5's refusal of the sign-in; the summary names the schemes that the proxy offered.",
    why: "No user was given, the password changed, or the proxy takes only Negotiate or NTLM, which need a Windows sign-in that a service on this host does not have.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "Put one line, user:password, into a file with mode 0600 and name it as proxy_auth. Where the proxy offers only Negotiate or NTLM, ask its operators for Basic for this host or for a rule that needs no sign-in, or run a local relay such as cntlm and use that as the proxy.",
};

pub(super) static PROXY_REFUSED: Entry = Entry {
    code: "proxy_refused",
    stages: &[Stage::Proxy],
    cause: "The proxy refused the tunnel to the server",
    remedies: &[
        "Allow CONNECT to this host and port at the proxy, or name the host in NO_PROXY where it can be reached directly.",
    ],
    seen: "The proxy's status to CONNECT, or its SOCKS5 reply, other than success and other than a demand for authentication.",
    why: "A rule of the proxy forbids the host, or a port other than 443; or the proxy itself cannot find or reach the server, as is usual for internal names.",
    on_azure_devops: "Ports such as 8080 and 8443 need a rule of their own in many proxies; or bind the site to 443 in IIS Manager → Bindings.",
    on_gitlab: "Let external_url in /etc/gitlab/gitlab.rb name port 443 where the proxy passes only that.",
    on_host: "Internal servers should not go through the proxy at all, mostly: add their domain to NO_PROXY, or set proxy = \"none\" in [servers.<name>].",
};

pub(super) static CONNECTION_REFUSED: Entry = Entry {
    code: "connection_refused",
    stages: &[Stage::Connect],
    cause: "Nothing listens on that port of the server, or a firewall rejects the connection",
    remedies: &[
        "Check the port in the URL and that the server runs.",
        "Ask the network team whether a firewall rejects connections from the agent's host.",
    ],
    seen: "The server's host answered the connection with a reset (ECONNREFUSED) on every address; the fact attempts has each with its time.",
    why: "The service is stopped, listens on another port, or listens on another address of its host only.",
    on_azure_devops: "IIS Manager → Sites → Azure DevOps Server: is it started, and which port do its Bindings name? For SSH: Administration Console → Application Tier → SSH Service.",
    on_gitlab: "Run `gitlab-ctl status` and look at external_url and nginx['listen_port'] in /etc/gitlab/gitlab.rb; for SSH at sshd and gitlab_rails['gitlab_shell_ssh_port'].",
    on_host: "Try `nc -vz HOST PORT` from here; compare the port with the one that works in a browser.",
};

pub(super) static CONNECTION_TIMED_OUT: Entry = Entry {
    code: "connection_timed_out",
    stages: &[Stage::Connect, Stage::Tls, Stage::HostKey],
    cause: "No answer came in time",
    remedies: &[
        "Have the firewall opened from the agent's host to this host and port.",
        "Where a proxy is the way out, configure it.",
    ],
    seen: "No answer within the time for connecting, 10 s for an address and 20 s in all; the fact attempts has each address with its time.",
    why: "Firewalls drop what they do not allow without a word. Less often the server is off, or its address has moved.",
    on_azure_devops: "Windows Defender Firewall with Advanced Security → Inbound Rules on the server: the site's port must be allowed from this host's network.",
    on_gitlab: "Look at the host's firewall (`ufw status`, `firewall-cmd --list-all`, the cloud's security group) for the port of external_url.",
    on_host: "Tell the network team the source (this host), the destination with port and the time of the attempt; set proxy in [servers.<name>] or HTTPS_PROXY where direct connections are not allowed at all.",
};

pub(super) static NETWORK_UNREACHABLE: Entry = Entry {
    code: "network_unreachable",
    stages: &[Stage::Connect],
    cause: "There is no route from the agent's host to the server",
    remedies: &["Check the routes, the VPN and the address family (IPv4 or IPv6) of the agent's host."],
    seen: "The system answered that it knows no way to the address (ENETUNREACH, EHOSTUNREACH), or that it may not use it.",
    why: "The VPN is down, the name has only an IPv6 address and this host has no IPv6, or a local rule such as IPAddressDeny forbids the address.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "Ask `ip route get ADDRESS`; look at IPAddressAllow and RestrictAddressFamilies in `systemctl cat sortie`.",
};

pub(super) static CONNECTION_RESET: Entry = Entry {
    code: "connection_reset",
    stages: &[Stage::Connect, Stage::Tls, Stage::HostKey],
    cause: "The connection was cut before TLS or SSH had begun in earnest",
    remedies: &[
        "Ask the network team for a firewall or load balancer that resets connections to this host and port.",
        "Check the server's own log at this time.",
    ],
    seen: "The connection was accepted and then closed or reset before the first useful byte.",
    why: "A firewall that looks into connections cuts those it does not like, a load balancer has no live server behind it, or the server is overloaded (sshd's MaxStartups does this).",
    on_azure_devops: "Check the binding of the site: https needs a certificate chosen (IIS Manager → Bindings → Edit), or Windows resets each connection.",
    on_gitlab: "Look at `gitlab-ctl tail nginx`; for SSH at MaxStartups and AllowUsers of sshd_config.",
    on_host: "Compare with another host of another network: if that one works, what lies between is the cause.",
};
