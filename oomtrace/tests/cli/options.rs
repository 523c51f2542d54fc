//! Texts made from the options, and options from the environment.

use super::*;

#[test]
fn texts_made_from_its_own_types() {
    let (code, out, _) = run(&["schema"]);
    let schema: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &schema["$schema"]), (0, &"https://json-schema.org/draft/2020-12/schema".into()));
    jsonschema::draft202012::meta::validate(&schema).unwrap();

    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, err) = run(&["completions", shell]);
        assert_eq!((code, err.as_str()), (0, ""), "{shell}");
        assert!(out.contains("oomtrace") && out.contains("ring-size"), "{shell}");
    }
    let (code, man, _) = run(&["man"]);
    assert_eq!(code, 0);
    assert!(man.contains(".TH oomtrace 1") && man.contains("ring\\-size"), "{man}");
    // Each command that the page names has its own page.
    for line in man.lines().filter_map(|line| line.strip_suffix("(1)")) {
        let name = line.rsplit("\\-").next().unwrap();
        let (code, page, _) = run(&["man", name]);
        assert!(code == 0 && page.contains(&format!(".TH oomtrace-{name} 1")), "{line}: {page}");
    }
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for text in [&man, &help] {
        assert!(!text.contains("simulate-victim") && !text.contains("simulate\\-victim"), "hidden");
        assert!(!text.contains("replay"), "hidden");
    }
    let version = format!("oomtrace {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(&["--version"]), (0, version, String::new()));
}

/// Runs it with these variables: exit code, standard output, standard error.
fn run_with(variables: &[(&str, &str)], arguments: &[&str]) -> (i32, String, String) {
    ended(oomtrace(arguments).envs(variables.iter().copied()).output().unwrap())
}

#[test]
fn options_come_from_the_environment_too() {
    // A bad value shows that the variable was read, and for which option. It is read before anything is
    // traced.
    for (variable, option) in [
        ("OOMTRACE_OUTPUT", "--output"),
        ("OOMTRACE_FILE_KEEP", "--file-keep"),
        ("OOMTRACE_RING_SIZE", "--ring-size"),
        ("OOMTRACE_RUNTIME_ROOT", "--runtime-root"),
    ] {
        for arguments in [&["run"][..], &[]] {
            let (code, _, err) = run_with(&[(variable, "?")], arguments);
            assert!(code == 2 && err.contains(option), "{variable} {arguments:?}: {code} {err}");
            assert!(err.contains(variable), "the variable is named: {err}");
        }
    }
    // The command line has priority, and an empty variable counts as unset.
    let (code, _, err) = run_with(&[("OOMTRACE_RING_SIZE", "?")], &["run", "--ring-size", "7"]);
    assert!(code == 2 && err.contains("'7'") && !err.contains("'?'"), "{err}");
    assert!(!err.contains("OOMTRACE_"), "the variable is not the cause: {err}");
    let empty = [("OOMTRACE_OUTPUT", ""), ("OOMTRACE_PIN", ""), ("OOMTRACE_NO_VERDICT", "")];
    assert_eq!(run_with(&empty, &["run", "--file", "-"]), run(&["run", "--file", "-"]));
    // A flag can be set with 1, and conflicts between options still apply: --debug conflicts with --pin.
    let (code, _, err) = run_with(&[("OOMTRACE_DEBUG", "1")], &["run", "--pin"]);
    assert!(code == 2 && err.contains("--debug") && err.contains("--pin"), "{err}");
    let (_, _, err) = run_with(&[("OOMTRACE_DEBUG", "0")], &["run", "--pin=/nonexistent/pins"]);
    assert!(!err.contains("--debug"), "{err}");
}

#[test]
fn a_wrong_number_is_explained() {
    for (arguments, says) in [
        (&["--file", "x", "--file-max-size", "1MiB", "--file-keep", "x"][..], "a whole number, as in 5"),
        (&["--file", "x", "--file-max-size", "1MiB", "--file-keep", "1000"], "at most 999"),
        (&["--count", "0"], "at least 1"),
        (&["--count", "1.5"], "a whole number, as in 5"),
        (&["--metrics-series", "15"], "at least 16"),
        (&["--since", "yesterday"], "`boot` is all since the host's boot"),
    ] {
        let (code, _, err) = run(arguments);
        assert!(code == 2 && err.contains(says), "{arguments:?}: {code} {err}");
    }
}

#[test]
fn a_variable_that_is_no_option_is_named() {
    const SAYS: &str = "the environment variable OOMTRACE_FILES is no option of `run`, and is ignored";
    // A bad value ends the run before anything is traced.
    let bad = ("OOMTRACE_RING_SIZE", "?");
    let known = [
        ("OOMTRACE_ARGS", ""),
        ("OOMTRACE_FILE", ""),
        ("OOMTRACE_METRICS_PORT_9469_TCP", "tcp://10.0.0.1:9469"),
    ];
    for arguments in [&["run"][..], &[], &["--signals", "off"]] {
        let (code, _, err) = run_with(&[("OOMTRACE_FILES", "/x"), bad], arguments);
        assert!(code == 2 && err.contains(SAYS), "{arguments:?}: {code} {err}");
        let (code, _, err) = run_with(&[known[0], known[1], known[2], bad], arguments);
        assert!(code == 2 && !err.contains("ignored"), "{arguments:?}: {code} {err}");
    }
    assert_eq!(run_with(&[("OOMTRACE_FILES", "/x")], &["schema"]), run(&["schema"]));
}

#[test]
fn other_commands_are_not_in_the_way_of_the_environment() {
    let set = [("OOMTRACE_FILE", "/nonexistent/oom.jsonl"), ("OOMTRACE_PIN", "/nonexistent/pins")];
    assert_eq!(run_with(&set, &["schema"]), run(&["schema"]));
    let wrong = [("OOMTRACE_OUTPUT", "?"), ("OOMTRACE_RING_SIZE", "?")];
    assert_eq!(run_with(&wrong, &["schema"]), run(&["schema"]));
    assert_eq!(
        run_with(&set, &["man", "run"]),
        run(&["man", "run"]),
        "a page does not change with the environment"
    );
    let detach = run_with(&set, &["detach"]);
    assert!(detach.2.contains("/nonexistent/pins"), "{detach:?}");
    let detach = run_with(&set, &["detach", "/nonexistent/others"]);
    assert!(detach.2.contains("/nonexistent/others"), "{detach:?}");
}

#[test]
fn detach_says_so_if_only_its_own_mount_was_left() {
    as_root();
    let script = r#"mount -t bpf -o mode=0700 oomtrace /sys/fs/bpf && "$0" detach /nonexistent/pins &&
        ! grep '^oomtrace /sys/fs/bpf ' /proc/self/mounts"#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_oomtrace")]);
    let (code, out, err) = ended(command.output().unwrap());
    assert_eq!((code, &*out, &*err), (0, "", "oomtrace: nothing is attached at /nonexistent/pins\n"));
}

/// Ends at once, pinned, on a separate bpffs that anybody can write, on which `made` was run before.
fn pinned_amid(made: &str) -> (i32, String, String) {
    as_root();
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        r#"mount -t bpf -o mode=1777 bpf "$1" && cd "$1" && {made} && cd / &&
           "$0" run --pin="$1/oomtrace" --timeout 1ms; code=$?; ls "$1/other"; "$0" detach "$1/oomtrace"; exit $code"#
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script, env!("CARGO_BIN_EXE_oomtrace")]).arg(dir.path());
    ended(command.output().unwrap())
}

#[test]
fn pins_are_put_where_nobody_else_leads_them() {
    let (code, out, err) = pinned_amid("mkdir other && ln -s other oomtrace && chown -h 4242 oomtrace");
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("/oomtrace is a symbolic link of user 4242"), "{err}");
    assert!(err.contains("belongs to user 0 (mode 1777)"), "{err}");
    assert_eq!(out, "", "pins in another program's directory");
    let (code, out, err) = pinned_amid("mkdir other oomtrace && chown 4242 oomtrace");
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("/oomtrace belongs to user 4242"), "{err}");
    let (code, out, err) = pinned_amid("mkdir other && chmod 777 .");
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("can be written by others (mode 0777)"), "{err}");
    let (code, out, err) = pinned_amid("mkdir other");
    assert_eq!(code, 0, "{out}{err}");
}
