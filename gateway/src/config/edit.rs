//! Changes a configuration file as a careful person would: an entry more, every comment and the order as they were.
//!
//! What always holds: nothing is written that `check` would refuse, nor over a change that somebody made meanwhile; the new
//! file takes the place of the old one in one step, with the same mode and owner.

use super::{Config, ConfigError, parse, read};
use anyhow::{Context as _, ensure};
use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table};

/// A file that is being changed.
pub(crate) struct Edit {
    /// As it was named.
    file: PathBuf,
    before: String,
    document: DocumentMut,
    /// What it means as it is.
    pub(crate) config: Config,
}

impl Edit {
    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read, or has faults already.
    pub(crate) fn open(file: &Path) -> anyhow::Result<Self> {
        let before = read(file)?;
        let config = parse(file, &before).map_err(ConfigError::from)?;
        let document = before.parse().with_context(|| file.display().to_string())?;
        Ok(Self { file: file.to_owned(), before, document, config })
    }

    /// A path as it is best written into this file.
    ///
    /// # Errors
    /// There is no such file.
    pub(crate) fn path(&self, named: &Path) -> anyhow::Result<String> {
        let path = named.canonicalize().with_context(|| named.display().to_string())?;
        let folder = super::source::folder(&self.file);
        let shown = path.strip_prefix(folder).unwrap_or(&path).to_str();
        shown.map(str::to_owned).with_context(|| format!("{}: its name is not UTF-8", named.display()))
    }

    /// Puts an entry behind the last `[[table]]`.
    ///
    /// # Errors
    /// They are written in another way.
    pub(crate) fn add(&mut self, table: &str, mut entry: Table) -> anyhow::Result<()> {
        let list = self.document.entry(table).or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
        let list = list.as_array_of_tables_mut();
        let list = list.with_context(|| format!("{table} is not written as [[{table}]]: write this one by hand"))?;
        entry.decor_mut().set_prefix("\n");
        list.push(entry);
        Ok(())
    }

    /// Writes it, and gives what `check` says about it that it did not say before.
    ///
    /// # Errors
    /// `check` would refuse it, it has changed meanwhile, or it cannot be written. Nothing was written.
    pub(crate) fn save(self) -> anyhow::Result<Vec<String>> {
        let after = self.document.to_string();
        let config = parse(&self.file, &after).map_err(ConfigError::from).context("nothing was written")?;
        replace(&self.file, &self.before, &after)?;
        // Of a note only the place may be another.
        let about = |note: &str| note.split_once(": ").map_or(note, |(_, about)| about).to_owned();
        let known: Vec<String> = self.config.notes.iter().map(|note| about(note)).collect();
        Ok(config.notes.into_iter().filter(|note| !known.contains(&about(note))).collect())
    }
}

/// Puts `after` in the place of a file that still holds `before`.
fn replace(named: &Path, before: &str, after: &str) -> anyhow::Result<()> {
    // A link stays one: what it points to is written.
    let file = named.canonicalize().with_context(|| named.display().to_string())?;
    let shown = || format!("{} cannot be written; nothing was changed", named.display());
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let new = file.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let written = write_new(&new, &file, before, after);
    if written.is_err() {
        let _ = fs::remove_file(&new); // there may be none
    }
    written.with_context(shown)
}

fn write_new(new: &Path, file: &Path, before: &str, after: &str) -> anyhow::Result<()> {
    let like = fs::metadata(file)?;
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    out.write_all(after.as_bytes())?;
    let owner = out.metadata()?;
    if (owner.uid(), owner.gid()) != (like.uid(), like.gid()) {
        fchown(&out, Some(like.uid()), Some(like.gid()))?;
    }
    out.set_permissions(fs::Permissions::from_mode(like.mode() & 0o7777))?;
    out.sync_all()?;
    ensure!(fs::read(file)? == before.as_bytes(), "somebody has changed it meanwhile: try again");
    fs::rename(new, file)?;
    // So that it is this one after a power cut, too.
    file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{super::tests, *};
    use toml_edit::value;

    fn user(name: &str) -> Table {
        let mut entry = Table::new();
        entry.insert("name", value(name));
        entry
    }

    /// A folder with a configuration that has comments.
    fn written() -> (tempfile::TempDir, PathBuf) {
        let dir = tests::folder();
        let file = dir.path().join("tidegate.toml");
        let text =
            tests::good().replace("[[target]]\nname = \"web-1\"", "# the web\n[[target]] # one\nname = \"web-1\"");
        fs::write(&file, format!("# ours\n{text}# the end\n")).unwrap();
        (dir, file)
    }

    #[test]
    fn an_entry_is_added_behind_its_like_and_nothing_else_changes() {
        let (_dir, file) = written();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        fchown(File::open(&file).unwrap(), Some(12), Some(34)).unwrap();
        let before = fs::read_to_string(&file).unwrap();
        let mut edit = Edit::open(&file).unwrap();
        edit.add("user", user("bob")).unwrap();
        let notes = edit.save().unwrap();
        assert_eq!(notes.len(), 2, "no way in, and in no group: {notes:?}");
        let after = fs::read_to_string(&file).unwrap();
        let (head, tail) = before.split_once("# the web").unwrap();
        assert_eq!(after, format!("{head}\n[[user]]\nname = \"bob\"\n# the web{tail}"));
        let found = fs::metadata(&file).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o640, 12, 34));
    }

    #[test]
    fn nothing_is_written_that_check_refuses_or_over_what_somebody_else_wrote() {
        let (dir, file) = written();
        let before = fs::read_to_string(&file).unwrap();
        let mut twice = Edit::open(&file).unwrap();
        twice.add("user", user("alice")).unwrap();
        let refused = format!("{:#}", twice.save().unwrap_err());
        assert!(
            refused.contains("is the name of another user already") && refused.contains("nothing was written"),
            "{refused}"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), before);

        let mut late = Edit::open(&file).unwrap();
        late.add("user", user("bob")).unwrap();
        fs::write(&file, format!("{before}# more\n")).unwrap();
        assert!(format!("{:#}", late.save().unwrap_err()).contains("somebody has changed it meanwhile"));
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{before}# more\n"));
        let left = fs::read_dir(dir.path())
            .unwrap()
            .filter(|file| file.as_ref().unwrap().path().to_string_lossy().ends_with(".new"));
        assert_eq!(left.count(), 0);

        fs::write(&file, before.replace("version = 1", "version = 2")).unwrap();
        assert!(Edit::open(&file).is_err(), "with faults it is not touched");
    }

    #[test]
    fn a_link_stays_a_link() {
        let (dir, file) = written();
        let real = dir.path().join("real.toml");
        fs::rename(&file, &real).unwrap();
        std::os::unix::fs::symlink("real.toml", &file).unwrap();
        let mut edit = Edit::open(&file).unwrap();
        edit.add("user", user("bob")).unwrap();
        edit.save().unwrap();
        assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
        assert!(fs::read_to_string(&real).unwrap().contains("bob"));
    }
}
