use clap::CommandFactory as _;

use super::*;

/// What `forwarder ring …` writes for this input.
fn ring(arguments: &str, input: &[u8]) -> anyhow::Result<Vec<u8>> {
    let cli = Cli::try_parse_from(["forwarder", "ring"].into_iter().chain(arguments.split(' ')))?;
    let Some(Command::Ring(command)) = cli.command else {
        panic!("{cli:?}")
    };
    let mut out = Vec::new();
    ring::execute(command, || input, &mut out)?;
    Ok(out)
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
    assert!(Cli::try_parse_from(["forwarder"]).unwrap().command.is_none());
    assert!(
        Cli::command()
            .render_long_help()
            .to_string()
            .contains("from the environment")
    );
}

#[test]
fn keys_are_bytes_without_the_line_end() {
    let out = ring("assign --clusters A", b"k1\r\n\n\xff\xfe\nlast").unwrap();
    assert_eq!(out, b"k1\tA\n\xff\xfe\tA\nlast\tA\n");
    let with = ring("assign --clusters A,B,C", b"x\ny\nz\n").unwrap();
    assert_eq!(
        with,
        ring("assign --clusters C,A,B --replicas 128", b"x\r\ny\nz").unwrap()
    );
}

#[test]
fn members_that_make_no_ring_are_refused() {
    for arguments in [
        "assign --clusters A,A",
        "assign --clusters A,",
        "assign --clusters A=x",
        "assign --clusters A=0",
    ] {
        ring(arguments, b"").unwrap_err();
    }
}

#[test]
fn a_diff_lists_shares_or_keys() {
    let shares = String::from_utf8(ring("diff --from A,B --to A,B,C", b"never read").unwrap()).unwrap();
    let lines: Vec<_> = shares.lines().collect();
    assert_eq!(lines.len(), 3, "{shares}");
    assert!(
        lines[0].starts_with("A\tC\t") && lines[1].starts_with("B\tC\t"),
        "{shares}"
    );
    assert!(lines[2].starts_with("total\t") && lines[2].ends_with('%'), "{shares}");
    assert_eq!(ring("diff --from A,B --to B,A", b"").unwrap(), b"total\t0.00%\n");
    assert_eq!(
        ring("diff --from A --to B", b"").unwrap(),
        b"A\tB\t100.00%\ntotal\t100.00%\n"
    );
    assert_eq!(ring("diff --from A --to B --keys -", b"k\n").unwrap(), b"k\tA\tB\n");
    assert_eq!(ring("diff --from A,B --to B,A --keys -", b"k\n").unwrap(), b"");
}

#[test]
fn a_closed_pipe_is_no_fault() {
    struct Closed;
    impl io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let cli = Cli::try_parse_from(["forwarder", "ring", "assign", "--clusters", "A"]).unwrap();
    let Some(Command::Ring(command)) = cli.command else {
        panic!("{cli:?}")
    };
    let input = b"key\n".repeat(100_000);
    let done = ring::execute(command, || input.as_slice(), Closed);
    assert!(done.is_err());
    quiet_at_closed_pipe(done).unwrap();
    quiet_at_closed_pipe(Err(anyhow::anyhow!("other"))).unwrap_err();
}

#[test]
fn check_says_ok_or_every_fault() {
    let text = "source: {connection: {bootstrapServers: [a:1]}}\nring: {clusters: [{name: C1, servers: [nats://c1]}]}";
    let mut out = Vec::new();
    check::check(text, &mut out).unwrap();
    assert!(
        String::from_utf8(out)
            .unwrap()
            .starts_with("ok\nsource: topic ofa_assets, ")
    );
    let wrong = text.replace("[a:1]", "[]").replace("[nats://c1]", "[]");
    let error = check::check(&wrong, Vec::new()).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 2, "{error}");
    // Also where the form is wrong.
    let unreadable = wrong.replace("servers: []", "server: []") + "\nnobody: knows\npublish: {mode: Core, subject: x}";
    let error = check::check(&unreadable, Vec::new()).unwrap_err().to_string();
    for fault in [
        "ring.clusters[0].server: ",
        "nobody: ",
        "source.connection.bootstrapServers: ",
        "publish.subject: ",
    ] {
        assert!(error.lines().any(|line| line.starts_with(fault)), "{fault} of {error}");
    }
    assert_eq!(error.lines().count(), 4, "{error}");
}

#[test]
fn a_document_without_its_ring_is_one_for_a_ring_file() {
    let mut out = Vec::new();
    check::check("source: {connection: {bootstrapServers: [a:1]}}", &mut out).unwrap();
    assert!(
        String::from_utf8(out)
            .unwrap()
            .contains("\nring: not in this document; ")
    );
}

/// What `forwarder run` with these arguments makes of a document with this text.
fn load(text: &str, arguments: &[&str]) -> anyhow::Result<RingOrigin> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let config = file.path().to_str().unwrap();
    let cli = Cli::try_parse_from(["forwarder", "run", "--config", config].iter().chain(arguments))?;
    let Some(Command::Run(arguments)) = cli.command else {
        panic!("{cli:?}")
    };
    Ok(arguments.load()?.1)
}

#[test]
fn the_ring_is_said_once() {
    const REST: &str = "source: {connection: {bootstrapServers: [a:1]}}\n";
    const WHOLE: &str =
        "source: {connection: {bootstrapServers: [a:1]}}\nring: {clusters: [{name: C1, servers: [nats://c1]}]}";
    let apart = ["--ring-file", "/ring.yaml"];
    let api = ["--ring-file", "/ring.yaml", "--ring-config-map", "plant/line-ring"];
    let refused = |text: &str, arguments: &[&str]| format!("{:#}", load(text, arguments).unwrap_err());

    assert!(matches!(
        load(WHOLE, &[]).unwrap(),
        RingOrigin::Given { watched: Some(_), .. }
    ));
    assert!(matches!(
        load(REST, &apart).unwrap(),
        RingOrigin::Apart { config_map: None, .. }
    ));
    assert!(
        matches!(load(REST, &api).unwrap(), RingOrigin::Apart { config_map: Some(key), .. } if key.name == "line-ring")
    );
    let both = refused(WHOLE, &apart);
    assert!(both.contains("ring: is also given by --ring-file /ring.yaml"), "{both}");
    let neither = refused(REST, &[]);
    assert!(
        neither.contains("ring: is missing; write it there, or run with --ring-file"),
        "{neither}"
    );
    let faulty = refused(&REST.replace("a:1", ""), &apart);
    assert!(faulty.contains("source.connection.bootstrapServers"), "{faulty}");
    let without_file = refused(REST, &api[2..]);
    assert!(without_file.contains("--ring-file"), "{without_file}");
    let no_name = refused(REST, &["--ring-file", "/r", "--ring-config-map", "ring"]);
    assert!(no_name.contains("write NAMESPACE/NAME"), "{no_name}");
}
