//! Runs one command after the other, with a progress line, and ends them when it is told to end.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Seek as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Between two looks at the child and at the signals that came in.
const POLL: Duration = Duration::from_millis(20);

/// Without a terminal, a line as often as this says that the step is still at work: some CI systems end a silent job.
const STILL: Duration = Duration::from_secs(30);

/// Runs the steps.
pub(crate) struct Steps {
    signals: RefCell<Signals>,
    told_to_end: Cell<bool>,
}

impl Steps {
    /// From here on Ctrl-C, SIGTERM and SIGHUP are passed on to what runs, instead of ending this process before its children.
    pub(crate) fn new() -> Result<Self> {
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("failed to register for signals")?;
        Ok(Self {
            signals: RefCell::new(signals),
            told_to_end: Cell::new(false),
        })
    }

    /// Whether a signal has come that asks for the end.
    pub(crate) fn told_to_end(&self) -> bool {
        self.told_to_end.get()
    }

    /// Runs a command whose output is the user's.
    pub(crate) fn show(&self, command: &mut Command) -> Result<ExitCode> {
        let status = self.run(command, |_| {})?;
        Ok(code(status))
    }

    /// Runs a command under a progress line and keeps its output for when it fails.
    pub(crate) fn work(&self, what: &str, command: &mut Command) -> Result<()> {
        let mut output = tempfile::tempfile().context("failed to make a temporary file")?;
        let status = self.log(what, command, &output)?;
        if status.success() {
            return Ok(());
        }
        bail!("{what} failed ({status}): {command:?}\n{}", read_back(&mut output))
    }

    /// Runs a command under a progress line, with its output in a file.
    pub(crate) fn log(&self, what: &str, command: &mut Command, output: &File) -> Result<ExitStatus> {
        command.stdout(output.try_clone()?).stderr(output.try_clone()?);
        let line = Line::start(what);
        let status = self.run(command, |elapsed| line.still(elapsed))?;
        if status.success() {
            line.done();
        } else {
            line.failed();
        }
        Ok(status)
    }

    /// Runs a command that takes a moment only, and keeps its output for when it fails.
    pub(crate) fn run_quietly(&self, command: &mut Command) -> Result<()> {
        let mut output = tempfile::tempfile().context("failed to make a temporary file")?;
        command.stdout(output.try_clone()?).stderr(output.try_clone()?);
        let status = self.run(command, |_| {})?;
        if status.success() {
            return Ok(());
        }
        bail!("a command failed ({status}): {command:?}\n{}", read_back(&mut output))
    }

    /// Does something of our own under a progress line. What it is given becomes true when the user wants it to end.
    pub(crate) fn quiet<T: Send + 'static>(
        &self,
        what: &str,
        act: impl FnOnce(&AtomicBool) -> Result<T> + Send,
    ) -> Result<T> {
        let line = Line::start(what);
        let (done, result) = mpsc::channel();
        let started = Instant::now();
        let cancelled = AtomicBool::new(false);
        let mut signal = None;
        let result = thread::scope(|scope| {
            let cancelled = &cancelled;
            scope.spawn(move || drop(done.send(act(cancelled))));
            loop {
                signal = signal.or_else(|| self.signals.borrow_mut().pending().next());
                if signal.is_some() {
                    self.told_to_end.set(true);
                    cancelled.store(true, Ordering::Relaxed);
                }
                match result.recv_timeout(POLL) {
                    Ok(result) => return result,
                    Err(mpsc::RecvTimeoutError::Timeout) => line.still(started.elapsed()),
                    Err(mpsc::RecvTimeoutError::Disconnected) => bail!("{what}: its thread has died"),
                }
            }
        });
        match &result {
            Ok(_) => line.done(),
            Err(_) => line.failed(),
        }
        if let Some(signal) = signal {
            bail!("ended by signal {signal}");
        }
        result
    }

    fn run(&self, command: &mut Command, mut still: impl FnMut(Duration)) -> Result<ExitStatus> {
        // A group of its own, so that a signal reaches all of it by the group's id and nothing else; and no terminal input, which a
        // group in the background would be stopped for.
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("failed to run {}", command.get_program().to_string_lossy()))?;
        let group = Pid::from_raw(i32::try_from(child.id()).context("a process id beyond all bounds")?);
        let started = Instant::now();
        let mut told = 0;
        loop {
            if let Some(status) = child.try_wait().context("failed to wait for a command")? {
                if told > 0 {
                    // Told to end, the command has; what it started and left behind ends too.
                    pass_on(group, Signal::SIGKILL)?;
                }
                return Ok(status);
            }
            for signal in self.signals.borrow_mut().pending() {
                self.told_to_end.set(true);
                told += 1;
                // Whoever asks a third time means it.
                let signal = if told > 2 {
                    Signal::SIGKILL
                } else {
                    Signal::try_from(signal).unwrap_or(Signal::SIGTERM)
                };
                pass_on(group, signal)?;
            }
            still(started.elapsed());
            thread::sleep(POLL);
        }
    }
}

fn pass_on(group: Pid, signal: Signal) -> Result<()> {
    match killpg(group, signal) {
        // Nobody is left, as wanted.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("failed to send {signal} to process group {group}")),
    }
}

fn code(status: ExitStatus) -> ExitCode {
    // As a shell tells it: 128 and the signal's number.
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn read_back(output: &mut File) -> String {
    let mut bytes = Vec::new();
    match output.rewind().and_then(|()| output.read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(its output cannot be read: {error})"),
    }
}

/// A progress line on a terminal; elsewhere a line now and then.
struct Line {
    what: String,
    bar: Option<ProgressBar>,
    said: Cell<u32>,
    started: Instant,
}

impl Line {
    fn start(what: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}") {
                bar.set_style(style);
            }
            bar.set_message(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if bar.is_none() {
            super::say(&format!("{what} …"));
        }
        Self {
            what: what.to_owned(),
            bar,
            said: Cell::new(0),
            started: Instant::now(),
        }
    }

    fn still(&self, elapsed: Duration) {
        let times = u32::try_from(elapsed.as_secs() / STILL.as_secs()).unwrap_or(u32::MAX);
        if self.bar.is_none() && times > self.said.get() {
            self.said.set(times);
            super::say(&format!("{} … {} s", self.what, elapsed.as_secs()));
        }
    }

    fn done(&self) {
        let seconds = self.started.elapsed().as_secs_f64();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        super::say(&format!("{}: done in {seconds:.1} s", self.what));
    }

    fn failed(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
