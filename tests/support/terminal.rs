//! A program on a terminal of its own, with an eye on what a person would see there.
//!
//! It stands beside the other rigs and not among them, because only few of those who use them have a terminal.

#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::binary::{binary, isolate};
use crate::support::process::{require, wait_until};

/// How long something may take to show.
const SHOW_LIMIT: Duration = Duration::from_secs(30);
/// Time between two looks at the screen.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// How many rows a terminal has here: enough that nothing scrolls away.
const ROWS: NonZero<u16> = NonZero::new(60).unwrap();

/// `sortie` on a terminal.
pub struct Terminal {
    child: Child,
    keyboard: Option<ChildStdin>,
    screen: Arc<Mutex<vt100::Parser>>,
    everything: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Runs `sortie` with these arguments on a terminal of so many columns, with `home` as its home.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(columns: NonZero<u16>, home: &Path, arguments: &[String]) -> Self {
        let program = binary("sortie");
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let words: Vec<_> = arguments.iter().map(|argument| quoted(argument)).collect();
        // The size is set from inside, because there is no terminal outside to take it from.
        let line = format!(
            "stty rows {ROWS} cols {columns}; exec {} {}",
            quoted(&program.display().to_string()),
            words.join(" ")
        );
        let mut command = Command::new(require("script", "bsdutils"));
        isolate(&mut command, home);
        command.args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"]);
        command.env("TERM", "xterm-256color").env("SHELL", "/bin/sh").env_remove("NO_COLOR");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("script starts");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, columns, 0)));
        let everything = Arc::new(Mutex::new(Vec::new()));
        let reader = std::thread::spawn({
            let mut output = child.stdout.take().expect("its output");
            let (screen, everything) = (Arc::clone(&screen), Arc::clone(&everything));
            move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = output.read(&mut bytes) {
                    lock(&everything).extend_from_slice(&bytes[..count]);
                    lock(&screen).process(&bytes[..count]);
                }
            }
        });
        let keyboard = child.stdin.take();
        Self { child, keyboard, screen, everything, reader: Some(reader) }
    }

    /// Types these bytes.
    pub fn press(&mut self, bytes: &[u8]) {
        let keyboard = self.keyboard.as_mut().expect("a keyboard");
        keyboard.write_all(bytes).and_then(|()| keyboard.flush()).expect("the terminal takes keys");
    }

    /// What is to be seen now, without the spaces at the ends of lines.
    pub fn shown(&self) -> String {
        let parser = lock(&self.screen);
        let (_, columns) = parser.screen().size();
        // Row by row, since a line that fills its row goes on in the next one for the terminal.
        let rows: Vec<_> =
            parser.screen().rows(0, columns.get()).map(|row| row.trim_end().to_owned()).collect();
        rows.join("\n").trim_end().to_owned() + "\n"
    }

    /// The same with its colors, as escape codes.
    pub fn painted(&self) -> String {
        let parser = lock(&self.screen);
        let screen = parser.screen();
        let columns = screen.size().1.get();
        let rows = 0..ROWS.get();
        let lines = rows.map(|row| {
            let cells = (0..columns).filter_map(|column| screen.cell(row, column));
            let cells = cells.filter(|cell| !cell.is_wide_continuation());
            let line: String = cells.map(painted).collect();
            line.trim_end().to_owned()
        });
        lines.collect::<Vec<_>>().join("\n").trim_end().to_owned() + "\n"
    }

    /// Every byte that came, escape codes and what was replaced since included.
    pub fn everything(&self) -> Vec<u8> {
        lock(&self.everything).clone()
    }

    /// Waits until the condition holds for what is to be seen.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + SHOW_LIMIT;
        while !condition(&self.shown()) {
            assert!(Instant::now() < deadline, "waited in vain: {what}\n{}", self.shown());
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    /// Waits for the end of the program and returns its exit status.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the program on the terminal ends", SHOW_LIMIT, || {
            status = self.child.try_wait().expect("the status of a child");
            status.is_some()
        });
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader of the terminal");
        }
        status.and_then(|status| status.code())
    }

    /// Whether the program left the cursor to be seen, at the beginning of a line.
    pub fn is_left_clean(&self) -> bool {
        let parser = lock(&self.screen);
        let screen = parser.screen();
        !screen.hide_cursor() && screen.cursor_position().1 == 0 && !screen.alternate_screen()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The terminal closes with script, which ends what runs on it by SIGHUP.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One character with its looks.
fn painted(cell: &vt100::Cell) -> String {
    let text = if cell.has_contents() { cell.contents() } else { " " };
    let color = match cell.fgcolor() {
        vt100::Color::Idx(color @ 0..8) => Some(format!("{}", 30 + u16::from(color))),
        _ => None,
    };
    let weight = if cell.bold() { Some("1") } else { cell.dim().then_some("2") };
    let codes: Vec<_> = color.as_deref().into_iter().chain(weight).collect();
    if codes.is_empty() || text == " " {
        return text.to_owned();
    }
    format!("\u{1b}[{}m{text}\u{1b}[0m", codes.join(";"))
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
