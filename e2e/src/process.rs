//! Child processes that never outlive their owner, each with a log file of its own.
//!
//! A child ends when its [`Process`] is dropped, by its own process id, never by a name. If the owner dies without dropping (SIGKILL), the kernel
//! ends the child: it was started through `setpriv --pdeathsig KILL`, which sets that and then *becomes* the program, so that the process id is
//! the program's. Where `setpriv` is missing (it is part of util-linux) only the drop protects.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often an exit is looked for. Short against any deadline in use here, and a look costs one system call.
const POLL: Duration = Duration::from_millis(5);

/// How much of a log is shown when something failed.
const TAIL_BYTES: u64 = 6_000;

/// What to start.
#[derive(Clone, Debug)]
pub struct Spec {
    name: String,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    clear_env: bool,
    dir: Option<PathBuf>,
    log: PathBuf,
    grace: Duration,
}

impl Spec {
    /// A program under a name for messages, and the file that takes its standard output and error (it is appended to).
    pub fn new(name: impl Into<String>, program: impl Into<OsString>, log: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            clear_env: false,
            dir: None,
            log: log.into(),
            grace: Duration::ZERO,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts with an environment that holds only `PATH`, `HOME` and `TMPDIR` besides what [`Spec::env`] sets.
    #[must_use]
    pub fn clear_env(mut self) -> Self {
        self.clear_env = true;
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// How long a drop waits after SIGTERM before SIGKILL. Zero, the default, kills at once: right for servers whose data is thrown away.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    fn command(&self) -> Result<Command> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("failed to open the log of {} at {}", self.name, self.log.display()))?;
        let mut command = guarded(&self.program, "KILL");
        if self.clear_env {
            command.env_clear();
            for name in ["PATH", "HOME", "TMPDIR"] {
                if let Some(value) = std::env::var_os(name) {
                    command.env(name, value);
                }
            }
        }
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        // A process group of its own: Ctrl-C at a terminal reaches the owner alone, which then ends its children in the right order.
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        Ok(command)
    }
}

/// A command that the kernel ends by `signal` when the thread that spawned it dies, where `setpriv` is there to arrange it.
pub fn guarded(program: &OsStr, signal: &str) -> Command {
    static SETPRIV: OnceLock<Option<PathBuf>> = OnceLock::new();
    let setpriv = SETPRIV.get_or_init(|| {
        let path = crate::tools::find_in_path("setpriv")?;
        // Busybox has a setpriv without this option.
        let tried = Command::new(&path)
            .args(["--pdeathsig", "KILL", "true"])
            .stderr(Stdio::null())
            .status()
            .ok()?;
        tried.success().then_some(path)
    });
    if let Some(setpriv) = setpriv {
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", signal, "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// A running child, or one that has ended and can be started again.
pub struct Process {
    spec: Spec,
    child: Child,
    exited: Option<ExitStatus>,
}

impl Process {
    /// Starts it.
    pub fn start(spec: Spec) -> Result<Self> {
        let child = keep(spec.command()?).with_context(|| {
            format!(
                "failed to start {}: could not run {}",
                spec.name,
                spec.program.to_string_lossy()
            )
        })?;
        Ok(Self {
            spec,
            child,
            exited: None,
        })
    }

    /// Starts it again, as it was started first. It must have ended.
    pub fn start_again(&mut self) -> Result<()> {
        if self.try_exit()?.is_none() {
            bail!(
                "{} (process {}) is still running; end it before starting it again",
                self.spec.name,
                self.pid()
            );
        }
        self.child = keep(self.spec.command()?).with_context(|| format!("failed to start {} again", self.spec.name))?;
        self.exited = None;
        Ok(())
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The name given at the start.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The exit status, if it has ended.
    pub fn try_exit(&mut self) -> Result<Option<ExitStatus>> {
        if self.exited.is_none() {
            self.exited = self
                .child
                .try_wait()
                .with_context(|| format!("failed to look after {}", self.spec.name))?;
        }
        Ok(self.exited)
    }

    /// Sends a signal. One to a process that has ended is an error.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.try_exit()? {
            bail!(
                "cannot send {signal} to {}: it has ended ({status})\n{}",
                self.spec.name,
                self.log_tail()
            );
        }
        // Not reaped yet, so the id is still this child's and nobody else's.
        kill(as_pid(self.pid()), signal).with_context(|| format!("failed to send {signal} to {}", self.spec.name))
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait_exit(Duration::from_secs(10)).map(drop)
    }

    /// SIGSTOP: it holds still, its connections stay.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// SIGCONT: it goes on.
    pub fn cont(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// SIGTERM.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Waits until it ends (blocking: from async code of a current-thread runtime, poll [`Process::try_exit`] instead).
    pub fn wait_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.try_exit()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} did not end within {within:?}\n{}", self.spec.name, self.log_tail());
            }
            thread::sleep(POLL);
        }
    }

    /// The log's path.
    pub fn log_path(&self) -> &Path {
        &self.spec.log
    }

    /// The whole log.
    pub fn log(&self) -> Result<String> {
        let bytes = std::fs::read(&self.spec.log).with_context(|| {
            format!(
                "failed to read the log of {} at {}",
                self.spec.name,
                self.spec.log.display()
            )
        })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The end of the log under a heading, for messages.
    pub fn log_tail(&self) -> String {
        match read_tail(&self.spec.log) {
            Ok(tail) if tail.trim().is_empty() => format!("({} has logged nothing)", self.spec.name),
            Ok(tail) => format!("--- end of the log of {} ---\n{}", self.spec.name, tail.trim_end()),
            Err(error) => format!("(the log of {} cannot be read: {error})", self.spec.name),
        }
    }

    /// CPU seconds used so far (user and system), of a running process.
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.pid())
    }

    /// The most memory it ever held resident, in bytes, of a running process.
    pub fn peak_rss_bytes(&self) -> Result<u64> {
        peak_rss_bytes(self.pid())
    }

    fn end(&mut self) -> Result<()> {
        if self.try_exit()?.is_some() {
            return Ok(());
        }
        if !self.spec.grace.is_zero() {
            self.terminate()?;
            // A stopped process would sit on its SIGTERM.
            self.cont()?;
            if self.wait_exit(self.spec.grace).is_ok() {
                return Ok(());
            }
        }
        self.kill9()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A look first, so that a test that failed shows how its processes stood, not how they were ended.
        if thread::panicking() {
            say(&self.log_tail());
        }
        if let Err(error) = self.end() {
            say(&format!(
                "failed to end {} (process {}): {error:#}",
                self.spec.name,
                self.pid()
            ));
        }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.spec.name)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

/// CPU seconds (user and system) that a process has used so far.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    // USER_HZ is 100 on every Linux that Rust runs on; it is part of the kernel's interface, not of its configuration.
    const TICKS_PER_SECOND: f64 = 100.0;
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    // The second field is the name in parentheses and may hold spaces: count from behind it.
    let fields = text
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect::<Vec<_>>())
        .unwrap_or_default();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    match (ticks(11), ticks(12)) {
        (Some(user), Some(system)) => Ok((user + system) / TICKS_PER_SECOND),
        _ => bail!("{path} is not in the form that proc(5) describes: {text}"),
    }
}

/// The most memory that a process ever held resident, in bytes.
pub fn peak_rss_bytes(pid: u32) -> Result<u64> {
    memory_bytes(pid, "VmHWM:")
}

/// The memory that a process holds resident now, in bytes.
pub fn rss_bytes(pid: u32) -> Result<u64> {
    memory_bytes(pid, "VmRSS:")
}

fn memory_bytes(pid: u32, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok())
        .ok_or_else(|| anyhow!("{path} has no {field}"))?;
    Ok(kib * 1024)
}

fn as_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}

fn say(text: &str) {
    // Nobody is left to report a broken stderr to.
    drop(writeln!(io::stderr(), "{text}"));
}

fn read_tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

type Order = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Spawns on a thread that lives as long as this process: the kernel takes the death of the *thread* that spawned for the parent's death.
fn keep(command: Command) -> io::Result<Child> {
    static KEEPER: OnceLock<Option<mpsc::Sender<Order>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        let thread = thread::Builder::new().name("keeper".to_owned()).spawn(move || {
            for (mut command, answer) in inbox {
                // Whoever asked has waited for it; if that thread is gone, the child is dropped and stays until this process ends.
                if let Err(mpsc::SendError(Ok(mut child))) = answer.send(command.spawn()) {
                    drop(child.kill());
                }
            }
        });
        thread.ok().map(|_| orders)
    });
    let gone = || io::Error::other("the thread that starts processes is gone");
    let (answer, result) = mpsc::sync_channel(1);
    keeper
        .as_ref()
        .ok_or_else(gone)?
        .send((command, answer))
        .map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}
