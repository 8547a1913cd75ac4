//! The generated workspace below `target/against`, and its build.
//!
//! Files are only written if their text changes, so that cargo builds only what has changed.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::manifest;
use super::revision::{self, Revision, Source, THIS_TREE};
use crate::errors::{about, failed, unfit};

/// The path of the adapter in a tree.
const ADAPTER: &str = "crates/measure/src/transports/shmpipe.rs";
/// The start of a line in an adapter that can be a crate of its own.
const CONVENTION: &str = "use shmpipe_measure::";

const BUILD: [&str; 3] = ["build", "--release", "--locked"];

/// The folder, locked for this process.
pub(super) struct Workspace {
    root: PathBuf,
    this: Tree,
    _lock: File,
}

/// The files of one revision.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    root: PathBuf,
    manifest: String,
    adapter: PathBuf,
    /// Whether the adapter is the tree's own.
    own: bool,
}

impl Tree {
    fn at(root: PathBuf, fallback: &Path) -> io::Result<Tree> {
        let manifest = revision::manifest(&root)?;
        let adapter = root.join(ADAPTER);
        let own = fs::read_to_string(&adapter)
            .is_ok_and(|text| text.lines().any(|line| line.starts_with(CONVENTION)));
        let adapter = if own { adapter } else { fallback.to_owned() };
        Ok(Tree { root, manifest, adapter, own })
    }

    /// A note if the tree has no adapter of its own.
    pub(super) fn adapter_note(&self) -> &'static str {
        if self.own { "" } else { ", with the adapter of this tree" }
    }
}

impl Workspace {
    /// Locks the folder. Waits while another process uses it.
    pub(super) fn open() -> io::Result<Workspace> {
        let this = Path::new(THIS_TREE);
        let this = this.canonicalize().map_err(|error| about(format_args!("{THIS_TREE}"), error))?;
        let this = Tree::at(this.clone(), &this.join(ADAPTER))?;
        let root = target(&this.root)?.join("against");
        let describe = |error| about(format_args!("{}", root.display()), error);
        fs::create_dir_all(&root).map_err(describe)?;
        let lock = File::create(root.join("lock")).map_err(describe)?;
        // SAFETY: flock only uses numbers.
        let flock = |how| unsafe { libc::flock(lock.as_raw_fd(), how) };
        if flock(libc::LOCK_EX | libc::LOCK_NB) == -1 {
            eprintln!("another process measures in {}: waiting until it ends", root.display());
            if flock(libc::LOCK_EX) == -1 {
                return Err(failed(format_args!("{}", root.join("lock").display())));
            }
        }
        Ok(Workspace { root, this, _lock: lock })
    }

    /// The files of a revision, exported if it is a commit.
    pub(super) fn tree(&self, revision: &Revision) -> io::Result<Tree> {
        let root = match &revision.source {
            Source::Directory(root) => root.clone(),
            Source::Commit(id) => revision::export(id, &self.root.join("trees"))?,
        };
        Tree::at(root, &self.this.adapter)
            .map_err(|error| about(format_args!("--against {}", revision.label), error))
    }

    /// Builds the program with `placements` code placements, and returns the files.
    pub(super) fn build(
        &self,
        revisions: &[Revision],
        trees: &[Tree],
        placements: usize,
    ) -> io::Result<Vec<PathBuf>> {
        let all: Vec<&Tree> = std::iter::once(&self.this).chain(trees).collect();
        let labels: Vec<&str> =
            std::iter::once("").chain(revisions.iter().map(|revision| &revision.label[..])).collect();
        self.generate(&all, &labels, placements)?;
        // adds the packages of this workspace to the lock file, offline if the local index suffices
        let resolve = ["update", "--workspace", "--quiet", "--offline"];
        if !self.cargo(&resolve, Stdio::null())? {
            self.cargo(&resolve[..3], Stdio::inherit())?;
        }
        if !self.cargo(&BUILD, Stdio::inherit())? {
            return Err(self.culprit(&all, &labels, placements)?);
        }
        let folder = self.root.join("target/release");
        Ok((0..placements).map(|placement| folder.join(manifest::program_name(placement))).collect())
    }

    fn generate(&self, trees: &[&Tree], labels: &[&str], placements: usize) -> io::Result<()> {
        let measure = self.this.root.join("crates/measure");
        for (number, tree) in trees.iter().enumerate() {
            let describe = |error| unfit(format!("{}: {error}", tree.root.join("Cargo.toml").display()));
            let library = manifest::library(number, &tree.root, &tree.manifest).map_err(describe)?;
            self.write(&format!("library-{number}/Cargo.toml"), &library)?;
            let adapter =
                manifest::adapter(number, &tree.adapter, &tree.manifest, &measure).map_err(describe)?;
            self.write(&format!("adapter-{number}/Cargo.toml"), &adapter)?;
        }
        for placement in 0..placements {
            let name = manifest::program_name(placement);
            self.write(&format!("src/bin/{name}.rs"), manifest::BIN)?;
        }
        let program = manifest::program(trees.len(), placements, &self.this.manifest, &measure);
        self.write("Cargo.toml", &program)?;
        self.write("src/lib.rs", &manifest::main_function(labels))?;
        self.write("build.rs", &manifest::build_script(placements))?;
        // the versions of this tree, which are already downloaded
        let lock = self.this.root.join("Cargo.lock");
        fs::copy(&lock, self.root.join("Cargo.lock"))
            .map_err(|error| about(format_args!("{}", lock.display()), error))?;
        Ok(())
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let path = self.root.join(file);
        let write = || {
            if fs::read_to_string(&path).is_ok_and(|found| found == text) {
                return Ok(());
            }
            fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
            fs::write(&path, text)
        };
        write().map_err(|error| about(format_args!("{}", path.display()), error))
    }

    /// Whether cargo succeeds, with the configuration of this tree.
    fn cargo(&self, words: &[&str], stderr: Stdio) -> io::Result<bool> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(words).arg("--manifest-path").arg(self.root.join("Cargo.toml"));
        if words[0] == "build" {
            command.arg("--target-dir").arg(self.root.join("target"));
        }
        // it would move the programs
        command.env_remove("CARGO_BUILD_TARGET");
        command.current_dir(&self.this.root).stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let status = command.status().map_err(|error| about(format_args!("cargo {}", words[0]), error))?;
        Ok(status.success())
    }

    /// The error of a failed build, with the package at fault.
    fn culprit(&self, trees: &[&Tree], labels: &[&str], placements: usize) -> io::Result<io::Error> {
        let builds = |package: &str| {
            self.cargo(&[&BUILD[..], &["--quiet", "--package", package]].concat(), Stdio::null())
        };
        for (number, (tree, label)) in trees.iter().zip(labels).enumerate() {
            let whose = if label.is_empty() { "this tree" } else { label };
            if !builds(&format!("shmpipe-against-{number}"))? {
                return Ok(io::Error::other(format!(
                    "the library of {whose} does not compile; its files: {}",
                    tree.root.display()
                )));
            }
            if !builds(&manifest::adapter_package(number))? {
                let file = tree.adapter.display();
                let why = if tree.own {
                    "it must fit the library of its own revision and the public API of crates/measure of this tree"
                } else {
                    "the revision has no adapter of its own, and its library does not fit the one of this tree; check the \
                     revision out, put an adapter that fits into that working copy and name the working copy"
                };
                return Ok(io::Error::other(format!(
                    "the adapter of {whose} does not compile: {file}; {why}"
                )));
            }
        }
        let hint = if placements > 1 {
            "; --placements needs a linker that knows --shuffle-sections: lld"
        } else {
            ""
        };
        Ok(io::Error::other(format!("the program in {} does not build{hint}", self.root.display())))
    }
}

/// The build directory that this program lies in.
fn target(this: &Path) -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    let marked = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    Ok(marked.map_or_else(|| this.join("target"), Path::to_owned))
}
