//! `watch` on a terminal.

use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;
use std::thread;

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::sync::mpsc;

use super::LONG;
use super::fake_api::FakeApi;

const OPEN: &str = "\u{1b}[?1049h\u{1b}[?25l";
const CLOSE: &str = "\u{1b}[?25h\u{1b}[?1049l";
/// What a page begins with.
const HOME: &str = "\u{1b}[H";

#[tokio::test]
async fn on_a_terminal_pages_of_its_size_are_drawn_and_ctrl_c_gives_it_back() {
    let api = FakeApi::start().await;
    let size = Winsize {
        ws_row: 8,
        ws_col: 50,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
    let (sender, mut shown) = mpsc::unbounded_channel();
    thread::spawn(move || {
        let mut master = File::from(master);
        let mut buffer = [0; 4096];
        // It fails when the other side is gone.
        while let Ok(read @ 1..) = master.read(&mut buffer) {
            drop(sender.send(buffer[..read].to_vec()));
        }
    });
    let mut program = Command::new(env!("CARGO_BIN_EXE_kubectl-fanout"));
    program
        .args(["-n", "plant", "watch", "assets", "--interval", "1s"])
        .env("KUBECONFIG", api.kubeconfig())
        .stdin(Stdio::null())
        .stdout(slave)
        .kill_on_drop(true);
    let mut child = program.spawn().unwrap();
    // It has its own copy of the terminal.
    drop(program);

    let told = tokio::time::timeout(LONG, async {
        let mut told = Vec::new();
        let mut is_interrupted = false;
        while let Some(more) = shown.recv().await {
            told.extend(more);
            let pages = String::from_utf8_lossy(&told).matches(HOME).count();
            if pages > 2 && !is_interrupted {
                let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap());
                kill(pid, Signal::SIGINT).unwrap();
                is_interrupted = true;
            }
        }
        String::from_utf8(told).unwrap()
    });
    let told = told.await.unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    assert!(told.starts_with(OPEN), "{told:?}");
    assert!(told.ends_with(CLOSE), "{told:?}");

    let pages: Vec<&str> = told.split(HOME).skip(1).collect();
    assert!(pages[0].contains("rate ?/s") && !pages[1].contains("?/s"), "{pages:?}");
    for page in pages {
        let lines: Vec<&str> = page.split("\r\n").collect();
        assert_eq!(lines.len(), 8, "{page:?}");
        assert!(lines[7].starts_with("C2 "), "{page:?}");
        for line in lines {
            let text = line.split('\u{1b}').next().unwrap();
            assert!(text.chars().count() <= 50, "{line:?}");
        }
        assert!(page.contains('…'), "the table is wider: {page:?}");
    }
}
