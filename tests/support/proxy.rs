//! tinyproxy with Basic auth on loopback: the proxy that such networks have.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::process::{Child, require, start_on_free_port, write_private};

/// A running proxy.
pub struct Proxy {
    port: u16,
    user: String,
    password: String,
    // The order of these fields is the order in which they end.
    child: Child,
    directory: TempDir,
}

impl Proxy {
    /// Starts one that wants this user and password; neither may hold spaces. It tunnels to every port.
    ///
    /// # Panics
    /// When tinyproxy is missing or does not start, with the reason.
    pub fn start(user: &str, password: &str) -> Self {
        let tinyproxy = require("tinyproxy", "tinyproxy-bin");
        let directory = tempfile::tempdir().expect("a private directory");
        let path = directory.path();
        let (child, port) = start_on_free_port("tinyproxy", path, |port| {
            // Without any ConnectPort line every port may be tunneled to, which is what random ports need.
            let configuration = format!(
                "Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 50\nAllow 127.0.0.1\nLogLevel Info\n\
                 LogFile \"{log}\"\nPidFile \"{pid}\"\nDisableViaHeader Yes\nBasicAuth {user} {password}\n",
                log = path.join("proxy.log").display(),
                pid = path.join("proxy.pid").display(),
            );
            let file = path.join("tinyproxy.conf");
            write_private(&file, &configuration).expect("the configuration of tinyproxy");
            let mut command = Command::new(&tinyproxy);
            command.arg("-d").arg("-c").arg(file);
            command
        });
        Self { port, user: user.to_owned(), password: password.to_owned(), child, directory }
    }

    /// `http://127.0.0.1:PORT`, without the credential.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `user:password`, the line for a file of proxy credentials.
    pub fn credential(&self) -> String {
        format!("{}:{}", self.user, self.password)
    }

    /// Its whole log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("proxy.log")).unwrap_or_default()
    }

    /// The targets (`host:port`) to which tunnels were asked for, refused ones included, oldest first.
    pub fn tunnels(&self) -> Vec<String> {
        let log = self.log();
        log.lines()
            .filter_map(|line| line.split_once(": CONNECT ").and_then(|(_, rest)| rest.split(' ').next()))
            .map(str::to_owned)
            .collect()
    }
}
