//! Programs that end with the test, whatever ends the test.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take to start.
pub const START_LIMIT: Duration = Duration::from_secs(20);
/// Time between two looks at a condition.
const POLL_PAUSE: Duration = Duration::from_millis(5);
/// How often another port is tried when a program finds its port taken.
const PORT_ATTEMPTS: u32 = 5;
/// How much of a log is shown when a program does not start, in bytes.
const TAIL_BYTES: usize = 4096;
/// Where daemons live on systems whose PATH for users lacks these directories.
const DAEMON_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// The path of a program.
///
/// # Panics
/// When it is not there, with the name of the Debian package that has it.
pub fn require(program: &str, package: &str) -> PathBuf {
    find_program(program).unwrap_or_else(|| {
        panic!("the program \"{program}\" is missing; install the Debian package \"{package}\": apt-get install {package}")
    })
}

fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = DAEMON_DIRECTORIES.iter().map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(daemons)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    user_number() == "0"
}

/// The name of the account that this process runs as.
pub fn user_name() -> String {
    command_line(Command::new("id").arg("-un"))
}

fn user_number() -> String {
    command_line(Command::new("id").arg("-u"))
}

/// Runs a program to its end and returns its output without the line end.
///
/// # Panics
/// When it cannot be run or fails, with what it wrote to standard error.
pub fn command_line(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}:\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
    listener.local_addr().expect("the bound address").port()
}

/// Whether something accepts connections on that loopback port.
pub fn accepts(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// Waits until the condition holds.
///
/// # Panics
/// When it does not within the limit; the message names `what`.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    assert!(poll(limit, &mut condition), "waited {limit:?} in vain: {what}");
}

fn poll(limit: Duration, condition: &mut dyn FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL_PAUSE);
    }
}

/// Starts a program that needs its port chosen ahead, again with another port while it ends before it listens.
///
/// `prepare` gets the port and returns the program with its arguments.
///
/// # Panics
/// When no attempt comes to listen, with the end of the last log.
pub fn start_on_free_port(
    name: &str,
    directory: &Path,
    mut prepare: impl FnMut(u16) -> Command,
) -> (Child, u16) {
    for attempt in 1..=PORT_ATTEMPTS {
        let port = free_port();
        let mut child = Child::start(name, &mut prepare(port), directory);
        let mut ended = false;
        let settled = poll(START_LIMIT, &mut || {
            ended = !child.is_running();
            ended || accepts(port)
        });
        if settled && !ended {
            return (child, port);
        }
        assert!(attempt < PORT_ATTEMPTS && settled, "{name} does not listen on {port}:\n{}", child.tail());
    }
    unreachable!("the last attempt returns or panics");
}

/// A program in a process group of its own, which is killed with it.
pub struct Child {
    name: String,
    child: std::process::Child,
    watchdog: std::process::Child,
    stdout_file: PathBuf,
    stderr_file: PathBuf,
    status: Option<ExitStatus>,
}

impl Child {
    /// Starts it with its output in `NAME.stdout` and `NAME.stderr` below `directory`; older output is replaced.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &str, command: &mut Command, directory: &Path) -> Self {
        let stdout_file = directory.join(format!("{name}.stdout"));
        let stderr_file = directory.join(format!("{name}.stderr"));
        let stdout = File::create(&stdout_file).expect("a file for standard output");
        let stderr = File::create(&stderr_file).expect("a file for standard error");
        command.process_group(0).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let watchdog = watch(child.id());
        Self { name: name.to_owned(), child, watchdog, stdout_file, stderr_file, status: None }
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("the status of a child");
        }
        self.status.is_none()
    }

    /// Waits for its end; `None` when it still runs after the limit.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        poll(limit, &mut || !self.is_running());
        self.status
    }

    /// Asks it to stop: SIGTERM to the program alone.
    pub fn terminate(&mut self) {
        self.signal("TERM");
    }

    /// As Ctrl-C would: SIGINT to the program alone.
    pub fn interrupt(&mut self) {
        self.signal("INT");
    }

    /// Sends a signal by name, such as `STOP`, to the program alone.
    pub fn signal(&mut self, name: &str) {
        if self.is_running() {
            send(name, &self.child.id().to_string());
        }
    }

    /// Kills the program and all that it started, as `kill -9` does, and waits for its end.
    pub fn kill(&mut self) {
        // The group is killed even when its leader has ended: others may be left in it.
        send("KILL", &format!("-{}", self.child.id()));
        // Waiting would never end if the group could not be signaled.
        let _ = self.child.kill();
        if self.status.is_none() {
            self.status = self.child.wait().ok();
        }
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        read_lossy(&self.stdout_file)
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        read_lossy(&self.stderr_file)
    }

    /// The end of what it wrote, for messages.
    pub fn tail(&self) -> String {
        format!("--- stdout\n{}\n--- stderr\n{}", tail(&self.stdout()), tail(&self.stderr()))
    }

    /// Waits until the condition holds while the program runs.
    ///
    /// # Panics
    /// When the program ends before or the limit is over, with the end of what it wrote.
    pub fn wait_for(&mut self, what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
        let mut ended = false;
        let held = poll(limit, &mut || {
            if condition() {
                return true;
            }
            ended = !self.is_running();
            ended
        });
        let name = &self.name;
        assert!(!ended, "{name} ended ({:?}) before: {what}\n{}", self.status, self.tail());
        assert!(held, "{name}: waited {limit:?} in vain: {what}\n{}", self.tail());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        // The watchdog goes last, so that there is no moment in which nobody would clean up.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
    }
}

/// Starts a shell that kills the group when this process dies, even by SIGKILL: its pipe is closed then.
///
/// It has a group of its own, so that Ctrl-C does not reach it, and none of this process's output.
fn watch(group: u32) -> std::process::Child {
    Command::new("sh")
        .args(["-c", "read -r _; kill -s KILL -- \"-$1\"", "watchdog", &group.to_string()])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell")
}

fn send(signal: &str, target: &str) {
    // A target that is gone already is what was wanted. The shell has a group of its own, so that an impatient
    // second Ctrl-C does not end it before it has done its work.
    let _ = Command::new("sh")
        .args(["-c", "kill -s \"$1\" -- \"$2\"", "kill", signal, target])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

fn read_lossy(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(TAIL_BYTES);
    let start = (start..text.len()).find(|position| text.is_char_boundary(*position)).unwrap_or(text.len());
    &text[start..]
}

/// Writes a file that only its owner may read.
///
/// # Errors
/// What the system answers.
pub fn write_private(path: &Path, content: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content.as_bytes())
}
