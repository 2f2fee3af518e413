//! Runs a program where system calls are refused: `denied WHAT PROGRAM [ARGS]`.
//!
//! `WHAT` is `docker`, which stands for Docker's default seccomp profile with Docker's capabilities (`docker.txt`).
//! Or it names an error and the calls that get it, such as `EPERM:timerfd_create,madvise=14` (`madvise` only with
//! that advice; `prctl=36` only with that option). `.ci/denied` uses it as Cargo's runner for test binaries.
#![allow(unsafe_code, reason = "capabilities are the kernel's")]

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::os::unix::process::CommandExt as _;

    let mut arguments = std::env::args_os().skip(1);
    let (Some(what), Some(program)) = (arguments.next(), arguments.next()) else {
        eprintln!("denied WHAT PROGRAM [ARGS]");
        return 2.into();
    };
    let filtered = what.to_str().ok_or("not text").map(linux::deny);
    if let Ok(Ok(())) = filtered {
        // The call returns only if it fails.
        let error = std::process::Command::new(&program).args(arguments).exec();
        eprintln!("denied: {}: {error}", program.display());
    } else {
        eprintln!("denied: {}: {filtered:?}", what.display());
    }
    2.into()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("filters of system calls are Linux's");
    std::process::exit(2);
}

#[cfg(target_os = "linux")]
mod linux {
    use std::error::Error;
    use std::fmt::Write as _;
    use std::io;

    use seccompiler::{TargetArch, apply_filter, compile_from_json};

    /// The capabilities that Docker leaves a container, by the numbers of capabilities(7): chown, dac_override,
    /// fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod, audit_write,
    /// setfcap.
    const DOCKER_CAPABILITIES: [libc::c_ulong; 14] =
        [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31];

    const DOCKER: &str = include_str!("../docker.txt");

    /// Installs the filter for this process and for the program that it becomes.
    pub(super) fn deny(what: &str) -> Result<(), Box<dyn Error>> {
        if what == "docker" {
            drop_capabilities()?;
            let lines = DOCKER.lines().filter(|line| !line.starts_with('#'));
            let allowed: Vec<_> = lines
                .map(rule_of_line)
                .collect::<Option<_>>()
                .ok_or("docker.txt")?;
            // If two filters refuse a call, the newer one gives the error.
            install(&errno(libc::EPERM), "\"allow\"", &allowed)?;
            return install("\"allow\"", &errno(libc::ENOSYS), &[rule("clone3", "")]);
        }
        let (error, calls) = what.split_once(':').ok_or("no error is named")?;
        let error = match error {
            "EPERM" => libc::EPERM,
            "ENOSYS" => libc::ENOSYS,
            "EINVAL" => libc::EINVAL,
            _ => return Err("EPERM, ENOSYS or EINVAL".into()),
        };
        let of_call = |call: &str| match call.split_once('=') {
            Some((name, said)) => {
                // The index of the argument that selects the operation.
                let index = match name {
                    "madvise" => 2,
                    "process_madvise" => 3,
                    _ => 0,
                };
                rule(name, &condition(index, "\"eq\"", said))
            }
            None => rule(call, ""),
        };
        let refused: Vec<_> = calls.split(',').map(of_call).collect();
        install("\"allow\"", &errno(error), &refused)
    }

    fn errno(error: i32) -> String {
        format!(r#"{{"errno": {error}}}"#)
    }

    fn rule(name: &str, arguments: &str) -> String {
        format!(r#"{{"syscall": "{name}", "args": [{arguments}]}}"#).replace(r#", "args": []"#, "")
    }

    fn condition(index: u32, operator: &str, value: &str) -> String {
        format!(r#"{{"index": {index}, "type": "dword", "op": {operator}, "val": {value}}}"#)
    }

    /// Turns a line of `docker.txt` into a rule. The file tells how.
    fn rule_of_line(line: &str) -> Option<String> {
        let words: Vec<_> = line.split(' ').collect();
        let [name, index, operator, value] = words[..] else {
            return (words.len() == 1).then(|| rule(line, ""));
        };
        let operator = match operator.split_once(':') {
            Some((operator, mask)) => format!(r#"{{"{operator}": {mask}}}"#),
            None => format!(r#""{operator}""#),
        };
        Some(rule(
            name,
            &condition(index.parse().ok()?, &operator, value),
        ))
    }

    /// Installs a filter that is written in the language of seccompiler.
    fn install(others: &str, these: &str, rules: &[String]) -> Result<(), Box<dyn Error>> {
        let mut json = String::new();
        write!(
            json,
            r#"{{"all": {{"mismatch_action": {others}, "match_action": {these}, "filter": [{}]}}}}"#,
            rules.join(", ")
        )?;
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        let filters = compile_from_json(json.as_bytes(), arch)?;
        for filter in filters.values() {
            apply_filter(filter)?;
        }
        Ok(())
    }

    /// Drops capabilities, so that the program has at most Docker's. A user who is not root has no capabilities to
    /// lose.
    fn drop_capabilities() -> io::Result<()> {
        for capability in (0..64).filter(|it| !DOCKER_CAPABILITIES.contains(it)) {
            // SAFETY: no pointers.
            let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
            // EINVAL: the kernel has no capability with that number.
            let error = io::Error::last_os_error();
            let harmless = [libc::EINVAL, libc::EPERM].map(Some);
            if result != 0 && !harmless.contains(&error.raw_os_error()) {
                return Err(error);
            }
        }
        Ok(())
    }
}
