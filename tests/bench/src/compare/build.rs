//! Builds peers, or finds out what is missing for it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::sys;

/// Where crates other than the server are built.
pub fn target(root: &Path) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => PathBuf::from(folder).join("peers"),
        None => root.join("target/peers"),
    }
}

/// Runs a tool to its end; what it said, or why it failed, in one line.
pub fn output(command: &mut Command) -> Result<Output, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    sys::die_with_parent(command);
    match command.output() {
        Ok(output) if output.status.success() => Ok(output),
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            let line = errors.lines().find(|line| line.contains("rror")).unwrap_or("no message");
            Err(format!("{program} failed ({}): {}", output.status, line.trim()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(format!("{program} is not installed"))
        }
        Err(e) => Err(format!("cannot run {program}: {e}")),
    }
}

/// `cargo build --release` in a folder; the program it made.
pub fn cargo(folder: &Path, target: Option<&Path>) -> Result<PathBuf, String> {
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--locked", "--message-format=json-render-diagnostics"]);
    // The variables that cargo sets for us are about our package, not that one.
    command.current_dir(folder);
    if let Some(target) = target {
        command.arg("--target-dir").arg(target);
    }
    let output = output(&mut command)?;
    executable(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| "cargo built no program".to_owned())
}

/// The program named in cargo's messages.
fn executable(messages: &str) -> Option<PathBuf> {
    let path = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    };
    messages.lines().filter_map(path).next_back()
}

/// `npm ci`, unless that was done; the path of node.
pub fn node(folder: &Path) -> Result<PathBuf, String> {
    output(Command::new("node").arg("--version"))?;
    let time = |file: &str| std::fs::metadata(folder.join(file)).and_then(|data| data.modified());
    let installed = time("node_modules/.package-lock.json").ok();
    if installed < time("package-lock.json").ok() {
        npm_ci(folder)?;
    }
    Ok(PathBuf::from("node"))
}

/// Installs exactly what the lock file says.
pub fn npm_ci(folder: &Path) -> Result<(), String> {
    let mut command = Command::new("npm");
    command.args(["ci", "--no-audit", "--no-fund", "--omit=dev"]).current_dir(folder);
    output(&mut command).map(drop)
}

/// nginx and its module nchan, as packages of the system.
pub fn nchan() -> Result<PathBuf, String> {
    output(Command::new("nginx").arg("-v"))?;
    let folders =
        ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"];
    folders
        .iter()
        .map(|folder| Path::new(folder).join("ngx_nchan_module.so"))
        .find(|module| module.is_file())
        .ok_or_else(|| "nginx has no nchan (Debian: libnginx-mod-nchan)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_in_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
                        {\"reason\":\"compiler-artifact\",\"executable\":\"/x/threadcast\"}\n\
                        {\"reason\":\"build-finished\",\"success\":true}\nnoise\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/x/threadcast")));
        assert_eq!(executable("{}"), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = output(&mut Command::new("no-such-tool")).expect_err("missing");
        assert_eq!(error, "no-such-tool is not installed");
        let error = output(Command::new("sh").args(["-c", "echo 'error: so' >&2; exit 3"]));
        assert!(error.expect_err("failed").contains("error: so"));
    }
}
