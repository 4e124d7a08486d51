//! Proxies on loopback, as such networks have them: tinyproxy with Basic auth, with and without TLS in front of
//! it, microsocks, and one that opens TLS.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustls::{ServerConfig, ServerConnection};
use stand_ins::{Authority, CertificateKind};
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

/// microsocks on loopback: a SOCKS5 proxy.
pub struct Socks {
    port: u16,
    child: Child,
    directory: TempDir,
}

impl Socks {
    /// Starts one, which wants this user and password where they are given.
    ///
    /// # Panics
    /// When microsocks is missing or does not start, with the reason.
    pub fn start(login: Option<(&str, &str)>) -> Self {
        let microsocks = require("microsocks", "microsocks");
        let directory = tempfile::tempdir().expect("a private directory");
        let (child, port) = start_on_free_port("microsocks", directory.path(), |port| {
            let mut command = Command::new(&microsocks);
            command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
            if let Some((user, password)) = login {
                command.args(["-u", user, "-P", password]);
            }
            command
        });
        Self { port, child, directory }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it wrote: a line for each tunnel, with the target as it was asked for.
    pub fn log(&self) -> String {
        self.child.stdout() + &self.child.stderr()
    }
}

/// stunnel in front of a tinyproxy: an HTTP proxy that is spoken to by TLS.
pub struct TlsProxy {
    port: u16,
    child: Child,
    /// The proxy behind it.
    pub inner: Proxy,
    directory: TempDir,
}

impl TlsProxy {
    /// Starts one with a certificate of this authority, which wants this user and password.
    ///
    /// # Panics
    /// When a program is missing or does not start, with the reason.
    pub fn start(authority: &Authority, certificate: CertificateKind, user: &str, password: &str) -> Self {
        let stunnel = require("stunnel", "stunnel4");
        let inner = Proxy::start(user, password);
        let directory = tempfile::tempdir().expect("a private directory");
        let issued = authority.issue(certificate).expect("a certificate");
        let (cert, key) = issued.write(directory.path(), "proxy").expect("its files");
        let (child, port) = start_on_free_port("stunnel", directory.path(), |port| {
            let configuration = format!(
                "foreground = yes\npid =\nsyslog = no\n[proxy]\naccept = 127.0.0.1:{port}\n\
                 connect = 127.0.0.1:{inner}\ncert = {cert}\nkey = {key}\n",
                inner = inner.port(),
                cert = cert.display(),
                key = key.display(),
            );
            let file = directory.path().join("stunnel.conf");
            write_private(&file, &configuration).expect("the configuration of stunnel");
            let mut command = Command::new(&stunnel);
            command.arg(file);
            command
        });
        Self { port, child, inner, directory }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A proxy that opens TLS: it answers CONNECT, and shows a certificate of its own authority in place of the
/// server's. It passes nothing on.
pub struct Interceptor {
    port: u16,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Interceptor {
    /// Starts one with a certificate of this authority.
    ///
    /// # Panics
    /// When it cannot listen, or the authority makes no certificate.
    pub fn start(authority: &Authority) -> Self {
        let config = authority.issue(CertificateKind::Valid).and_then(|issued| issued.server_config());
        let config = Arc::new(config.expect("a certificate"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("the bound address").port();
        let stopped = Arc::new(AtomicBool::new(false));
        let asked_to_stop = Arc::clone(&stopped);
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if asked_to_stop.load(Ordering::Relaxed) {
                    return;
                }
                // A client that does not believe the certificate hangs up, and that is what it is for.
                let _ = connection.and_then(|tcp| intercept(tcp, Arc::clone(&config)));
            }
        });
        Self { port, stopped, thread: Some(thread) }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Interceptor {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread, which then sees that it shall end.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn intercept(mut tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        tcp.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    tcp.write_all(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 inspection\r\n\r\n")?;
    let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut tcp)?;
    }
    Ok(())
}
