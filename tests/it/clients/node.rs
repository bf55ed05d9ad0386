//! What runs in node: libraries of JavaScript, and a real browser.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The folder into which `tests/run` has put node's modules, this one too. `None` where it could not be had, outside CI.
pub(crate) fn modules(module: &str) -> Option<PathBuf> {
    let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    let modules = env::var_os("TIDEGATE_TEST_NODE_MODULES")
        .map_or_else(|| target.join("clients-node/node_modules"), PathBuf::from);
    there(&modules.join(module)).then_some(modules)
}

/// A real browser's program. `None` where there is none, outside CI.
pub(crate) fn browser() -> Option<&'static Path> {
    let programs = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].map(Path::new);
    programs.into_iter().find(|program| program.exists()).or_else(|| there(programs[0]).then_some(programs[0]))
}

/// A script of the fixtures, for node.
pub(crate) fn script(name: &str, modules: &Path) -> Command {
    let mut node = Command::new("node");
    node.arg(format!("{}/it/{name}", env!("CARGO_MANIFEST_DIR"))).env("NODE_PATH", modules);
    node
}

fn there(path: &Path) -> bool {
    if !path.exists() {
        assert!(env::var_os("CI").is_none(), "{} is missing: ./tests/run installs it", path.display());
        eprintln!("SKIPPED: {} is missing; ./tests/run installs it", path.display());
    }
    path.exists()
}
