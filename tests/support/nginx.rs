//! nginx in front of fcgiwrap and `git http-backend`, over TLS: a git server without an API.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stand_ins::{Authority, CertificateKind};
use tempfile::TempDir;

use super::process::{Child, START_LIMIT, command_line, is_root, require, start_on_free_port, write_private};

/// Requests that are served at once where a plan does not say.
const CGI_PROCESSES: usize = 4;

/// What an nginx shall be; [`NginxPlan::start`] starts it.
pub struct NginxPlan {
    root: PathBuf,
    accepted: Vec<String>,
    certificate: CertificateKind,
    directives: Vec<String>,
    processes: usize,
}

/// A running nginx with its fcgiwrap.
pub struct Nginx {
    port: u16,
    // The order of these fields is the order in which they end.
    server: Child,
    wrapper: Child,
    directory: TempDir,
}

impl Nginx {
    /// Plans a server for the bare repositories below `root`: `root/group/web.git` is served as `/group/web.git`.
    ///
    /// Without any accepted credential it serves everybody.
    pub fn plan(root: &Path) -> NginxPlan {
        NginxPlan {
            root: root.to_owned(),
            accepted: Vec::new(),
            certificate: CertificateKind::Valid,
            directives: Vec::new(),
            processes: CGI_PROCESSES,
        }
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        self.url_with_host("127.0.0.1")
    }

    /// The same with another host, such as `localhost`, which the certificate has as well.
    pub fn url_with_host(&self, host: &str) -> String {
        format!("https://{host}:{}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// One line for each answered request: method, URI, status, and `yes` or `no` for a credential.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.directory.path().join("access.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// The log of errors.
    pub fn errors(&self) -> String {
        fs::read_to_string(self.directory.path().join("error.log")).unwrap_or_default()
    }
}

impl NginxPlan {
    /// Accepts this user with this password; an empty name with a token is the form of a PAT.
    pub fn accept_basic(mut self, user: &str, secret: &str) -> Self {
        self.accepted.push(format!("Basic {}", STANDARD.encode(format!("{user}:{secret}"))));
        self
    }

    /// Accepts this token with an empty user name.
    pub fn accept_pat(self, token: &str) -> Self {
        self.accept_basic("", token)
    }

    /// Accepts this token as a Bearer.
    pub fn accept_bearer(mut self, token: &str) -> Self {
        self.accepted.push(format!("Bearer {token}"));
        self
    }

    /// Serves a certificate in this condition.
    pub fn with_certificate(mut self, kind: CertificateKind) -> Self {
        self.certificate = kind;
        self
    }

    /// Adds a directive to the server's block, with its semicolon: `return 502;`, `ssl_verify_client on;`, ….
    pub fn with_directive(mut self, directive: &str) -> Self {
        self.directives.push(directive.to_owned());
        self
    }

    /// Serves this many requests at once.
    pub fn with_processes(mut self, processes: usize) -> Self {
        self.processes = processes;
        self
    }

    /// Starts it with a certificate of this authority.
    ///
    /// # Panics
    /// When a program is missing or does not start, with the reason.
    pub fn start(self, authority: &Authority) -> Nginx {
        require("nginx", "nginx-light");
        let fcgiwrap = require("fcgiwrap", "fcgiwrap");
        let directory = tempfile::tempdir().expect("a private directory");
        let path = directory.path();
        authority
            .issue(self.certificate)
            .and_then(|issued| issued.write(path, "server"))
            .expect("a certificate");
        let socket = path.join("cgi.socket");
        let mut command = Command::new(fcgiwrap);
        command
            .args(["-f", "-c", &self.processes.to_string(), "-s"])
            .arg(format!("unix:{}", socket.display()));
        let mut wrapper = Child::start("fcgiwrap", &mut command, path);
        wrapper.wait_for("fcgiwrap listens", START_LIMIT, || UnixStream::connect(&socket).is_ok());
        let (server, port) =
            start_on_free_port("nginx", path, |port| nginx_in(path, &self.configuration(path, port)));
        Nginx { port, server, wrapper, directory }
    }

    fn configuration(&self, directory: &Path, port: u16) -> String {
        let beginning = beginning(directory, "$request_method $request_uri $status $has_credential");
        let directory = directory.display();
        let mut accepted = String::new();
        for value in &self.accepted {
            // Plain words in a map are compared without regard to case, which would accept wrong secrets.
            let _ = writeln!(accepted, "        \"~^{}$\" accepted;", escape(value));
        }
        let guard = if self.accepted.is_empty() {
            ""
        } else {
            "if ($git_access = \"\") { add_header WWW-Authenticate 'Basic realm=\"git\"' always; return 401; }"
        };
        let directives = self.directives.join("\n        ");
        let backend =
            Path::new(&command_line(Command::new("git").arg("--exec-path"))).join("git-http-backend");
        let (backend, root) = (backend.display(), self.root.display());
        format!(
            r#"{beginning}    map $http_authorization $has_credential {{ default yes; "" no; }}
    map $http_authorization $git_access {{
        default "";
{accepted}    }}
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {directory}/server.pem;
        ssl_certificate_key {directory}/server.key;
        client_max_body_size 0;
        {directives}
        location / {{
            {guard}
            fastcgi_pass unix:{directory}/cgi.socket;
            fastcgi_buffering off;
            fastcgi_read_timeout 300s;
            fastcgi_param SCRIPT_FILENAME {backend};
            fastcgi_param GIT_PROJECT_ROOT "{root}";
            fastcgi_param GIT_HTTP_EXPORT_ALL 1;
            fastcgi_param GIT_CONFIG_NOSYSTEM 1;
            fastcgi_param GIT_CONFIG_GLOBAL /dev/null;
            fastcgi_param GIT_CONFIG_COUNT 3;
            fastcgi_param GIT_CONFIG_KEY_0 http.receivepack;
            fastcgi_param GIT_CONFIG_VALUE_0 false;
            fastcgi_param GIT_CONFIG_KEY_1 safe.directory;
            fastcgi_param GIT_CONFIG_VALUE_1 "*";
            fastcgi_param GIT_CONFIG_KEY_2 uploadpack.allowReachableSHA1InWant;
            fastcgi_param GIT_CONFIG_VALUE_2 true;
            fastcgi_param PATH_INFO $uri;
            fastcgi_param QUERY_STRING $args;
            fastcgi_param REQUEST_METHOD $request_method;
            fastcgi_param CONTENT_TYPE $content_type;
            fastcgi_param CONTENT_LENGTH $content_length;
            fastcgi_param REMOTE_ADDR $remote_addr;
        }}
    }}
}}
"#
        )
    }
}

/// The command for an nginx with all of its files in a private directory.
pub(super) fn nginx_in(directory: &Path, configuration: &str) -> Command {
    let file = directory.join("nginx.conf");
    write_private(&file, configuration).expect("the configuration of nginx");
    let mut command = Command::new(require("nginx", "nginx-light"));
    command.arg("-p").arg(directory).arg("-c").arg(&file).arg("-e").arg(directory.join("error.log"));
    command
}

/// The configuration up to the middle of `http`: one process in the foreground, with a line for each answered request.
pub(super) fn beginning(directory: &Path, log_format: &str) -> String {
    let directory = directory.display();
    // The workers of a root's nginx would otherwise lose the right to the private directory.
    let user = if is_root() { "user root;" } else { "" };
    format!(
        r#"{user}
daemon off;
master_process on;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log info;
events {{ worker_connections 64; }}
http {{
    log_format short '{log_format}';
    access_log {directory}/access.log short;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
"#
    )
}

/// Makes every character that could mean something in a regular expression or in nginx's own grammar harmless.
fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "\\x{byte:02x}");
        }
        escaped
    })
}
