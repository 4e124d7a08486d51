//! nginx in front of a control plane: as it is by default, which passes no WebSocket, or set up to pass them.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::process::{
    Child, START_LIMIT, accepts, is_root, require, start_on_free_port, wait_until, write_private,
};

/// What makes nginx pass upgrades on.
const PASSES_UPGRADES: &str = "proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection \"upgrade\";";

/// A running nginx.
pub struct ReverseProxy {
    port: u16,
    target: u16,
    // The order of these fields is the order in which they end.
    child: Child,
    directory: TempDir,
}

impl ReverseProxy {
    /// Starts one in front of a port on loopback.
    ///
    /// # Panics
    /// When nginx is missing or does not start, with the reason.
    pub fn start(target: u16, passes_upgrades: bool) -> Self {
        let directory = tempfile::tempdir().expect("a private directory");
        let (child, port) = start_on_free_port("nginx", directory.path(), |port| {
            nginx(directory.path(), port, target, passes_upgrades)
        });
        Self { port, target, child, directory }
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts everything that goes through it, and lets nothing through until it is started again.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Starts it again on the same port.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn restart(&mut self, passes_upgrades: bool) {
        self.child.kill();
        let mut command = nginx(self.directory.path(), self.port, self.target, passes_upgrades);
        self.child = Child::start("nginx", &mut command, self.directory.path());
        wait_until("nginx listens again", START_LIMIT, || accepts(self.port));
    }

    /// Lets it take up another configuration in order: requests that are under way end as they began.
    pub fn reload(&mut self, passes_upgrades: bool) {
        let _written = nginx(self.directory.path(), self.port, self.target, passes_upgrades);
        self.child.signal("HUP");
    }

    /// One line for each answered request: method, URI and status.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.directory.path().join("access.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

fn nginx(directory: &Path, port: u16, target: u16, passes_upgrades: bool) -> Command {
    super::nginx::nginx_in(directory, &configuration(directory, port, target, passes_upgrades))
}

fn configuration(directory: &Path, port: u16, target: u16, passes_upgrades: bool) -> String {
    let beginning = super::nginx::beginning(directory, "$request_method $request_uri $status");
    let upgrades = if passes_upgrades { PASSES_UPGRADES } else { "" };
    format!(
        r#"{beginning}    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass http://127.0.0.1:{target};
            proxy_set_header Host $http_host;
            {upgrades}
        }}
    }}
}}
"#
    )
}
