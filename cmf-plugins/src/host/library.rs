//! One dynamic library: what the file is, whether it may be loaded, and its tables once it is.

use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};

use cmf_core::{Error, Result};
use cmf_plugin::abi::{self, CmfDatasetFactory, CmfEnergyFactory, CmfEntry, CmfPlugin, CmfTaskFactory};
use cmf_plugin::{Schema, text_of};
use object::read::{ReadCache, ReadRef};
use object::{Architecture, BinaryFormat, FileKind, Object, ObjectKind, ObjectSegment};

use super::faults;
use super::plugins::KindOfPlugin;
use crate::digest::sha256;

/// Larger files are not read.
const MOST_BYTES: u64 = 1 << 30;
/// More entries than this in one factory are a broken table.
const MOST_ENTRIES: usize = 4096;

/// A file that has been looked at, none of its code having run.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// The file itself, symbolic links resolved.
    pub path: PathBuf,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// Reads a file and refuses what can be no plugin here: another kind of file, another machine's library,
/// one without the symbol, one that anyone may write.
pub fn inspect(path: &Path) -> Result<Inspected> {
    let real = check_place(path)?;
    let bytes = std::fs::read(&real).map_err(|e| Error::file(path, format!("cannot read: {e}")))?;
    let without = "so it is no CMF plugin; see cmf_plugin.h, or start from `cmf-cli plugin new`";
    check_content(&bytes[..], abi::SYMBOL, without).map_err(|message| Error::file(path, message))?;
    Ok(Inspected { path: real, sha256: sha256(&bytes) })
}

/// The file itself, if it is a library of this machine that exports `symbol`, which not everyone may write; `without` ends
/// the message about a library without the symbol. Of a large file no more is read than that takes.
pub(super) fn find_library(path: &Path, symbol: &str, without: &str) -> Result<PathBuf> {
    let real = check_place(path)?;
    let file = File::open(&real).map_err(|e| Error::file(path, format!("cannot read: {e}")))?;
    let content = ReadCache::new(file);
    check_content(&content, symbol, without).map_err(|message| Error::file(path, message))?;
    Ok(real)
}

/// The file itself, symbolic links resolved, if it may be read and not everyone may write it.
fn check_place(path: &Path) -> Result<PathBuf> {
    let fail = |message: String| Error::file(path, message);
    let real = path.canonicalize().map_err(|e| fail(format!("cannot read: {e}")))?;
    let found = real.metadata().map_err(|e| fail(format!("cannot read: {e}")))?;
    if !found.is_file() {
        return Err(fail("is no file, expected a dynamic library".into()));
    }
    if found.len() > MOST_BYTES {
        return Err(fail(format!("is larger than {} MiB, expected a dynamic library", MOST_BYTES >> 20)));
    }
    check_writers(&real).map_err(&fail)?;
    // A link to the file may lie where everyone can replace it.
    let given = std::path::absolute(path).map_err(|e| fail(format!("cannot read: {e}")))?;
    check_writers(&given).map_err(&fail)?;
    Ok(real)
}

/// Refuses files that every user may write, or replace in their folder.
pub(super) fn check_writers(path: &Path) -> Result<(), String> {
    if mode(path)? & 0o002 != 0 {
        let file = path.display();
        return Err(format!("every user may write this file, so its code is nobody's: run chmod o-w {file}"));
    }
    // In a sticky folder such as /tmp nobody replaces another's files.
    match path.parent() {
        Some(folder) if mode(folder)? & 0o1002 == 0o002 => {
            let folder = folder.display();
            Err(format!("every user may replace files in its folder: run chmod o-w {folder}"))
        }
        _ => Ok(()),
    }
}

/// Refuses a folder that every user may put files into, sticky or not.
pub(super) fn check_folder(folder: &Path) -> Result<(), String> {
    if mode(folder)? & 0o002 != 0 {
        let folder = folder.display();
        return Err(format!("every user may put files into its folder: run chmod o-w {folder}"));
    }
    Ok(())
}

#[cfg(unix)]
fn mode(path: &Path) -> Result<u32, String> {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().map(|m| m.permissions().mode()).map_err(|e| format!("cannot read: {e}"))
}

/// Other systems keep this in access lists that are not read here.
#[cfg(not(unix))]
fn mode(_path: &Path) -> Result<u32, String> {
    Ok(0)
}

/// Whether this is the content of a whole library of this machine with the symbol.
fn check_content<'a>(content: impl ReadRef<'a>, symbol: &str, without: &str) -> Result<(), String> {
    let length = content.len().map_err(|()| "cannot be read")?;
    let kind = FileKind::parse(content).map_err(|_| {
        let beginning = content.read_bytes_at(0, length.min(512));
        let what = if length == 0 {
            "an empty file"
        } else if beginning.is_ok_and(|bytes| std::str::from_utf8(bytes).is_ok()) {
            "a text file"
        } else {
            "a file of an unknown kind"
        };
        format!("is {what}, expected a dynamic library")
    })?;
    if matches!(kind, FileKind::MachOFat32 | FileKind::MachOFat64) {
        return Ok(()); // The loader picks the slice that fits.
    }
    let file =
        object::File::parse(content).map_err(|e| format!("is damaged, expected a dynamic library: {e}"))?;
    let (found, ours) = (file.architecture(), here().unwrap_or(file.architecture()));
    if file.format() != BinaryFormat::native_object() || found != ours {
        return Err(format!(
            "is a library for another architecture: found {:?} {found:?}, this machine runs {:?} {ours:?}; build it here",
            file.format(),
            BinaryFormat::native_object()
        ));
    }
    if file.kind() != ObjectKind::Dynamic {
        return Err(format!("is a file of the kind {:?}, expected a dynamic library", file.kind()));
    }
    let damaged = |e| format!("is damaged, its exports cannot be read: {e}");
    // The loader maps segments whether the file is long enough or not, and dies when it reads them.
    let beyond = |(from, size): (u64, u64)| from.checked_add(size).is_none_or(|end| end > length);
    if file.segments().any(|segment| beyond(segment.file_range())) {
        return Err("is cut short, expected a whole dynamic library: copy it again".into());
    }
    let exports: Vec<_> = file.exports().map_err(damaged)?.collect::<Result<_, _>>().map_err(damaged)?;
    // Mach-O puts an underscore before every name.
    let underscored = format!("_{symbol}");
    let is_entry = |name: object::read::NameOrOrdinal<&[u8]>| match name {
        object::read::NameOrOrdinal::Name(name) => {
            name == symbol.as_bytes() || name == underscored.as_bytes()
        }
        _ => false,
    };
    if !exports.iter().any(|e| is_entry(e.name())) {
        return Err(format!("lacks the symbol {symbol}, {without}"));
    }
    Ok(())
}

/// Loads a library, which is never unloaded: what it gave out may be anywhere.
///
/// # Safety
/// As safe as the library's code, which runs.
pub(super) unsafe fn load_for_good(path: &Path) -> Result<&'static libloading::Library, String> {
    faults::about_to_load(path);
    // SAFETY: the caller's.
    let library = unsafe { libloading::Library::new(path) };
    let library = library.map_err(|e| format!("the system's loader refuses it: {}", reason(&e)))?;
    Ok(Box::leak(Box::new(library)))
}

/// What the system said; the error itself only names the function that failed.
pub(super) fn reason(e: &libloading::Error) -> String {
    std::error::Error::source(e).map_or(e.to_string(), ToString::to_string)
}

/// This machine's architecture; of one that is not listed here the system's loader is the judge.
fn here() -> Option<Architecture> {
    match std::env::consts::ARCH {
        "x86_64" => Some(Architecture::X86_64),
        "x86" => Some(Architecture::I386),
        "aarch64" => Some(Architecture::Aarch64),
        "arm" => Some(Architecture::Arm),
        "riscv64" => Some(Architecture::Riscv64),
        _ => None,
    }
}

/// What a factory offers under one name, its schema checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The name.
    pub name: String,
    /// What it is, in one line.
    pub about: String,
    /// JSON schema of its parameters.
    pub parameters: String,
}

/// A loaded plugin.
#[derive(Clone, Copy)]
pub struct Library {
    table: &'static CmfPlugin,
    path: &'static Path,
    id: &'static Identity,
}

struct Identity {
    name: String,
    version: String,
}

impl Library {
    /// Loads a file, which runs its code. Fails unless it is a plugin of a version that is understood.
    pub fn load(file: &Inspected) -> Result<Library> {
        let path = &file.path;
        let fail = |message: String| Error::file(path, message);
        // SAFETY: running a library's code is as safe as the library; the user asked for it by name or trust.
        let library = unsafe { load_for_good(path) }.map_err(&fail)?;
        // SAFETY: by the header the symbol is a cmf_plugin, constant for the life of the process.
        let table = unsafe { library.get::<*const CmfPlugin>(abi::SYMBOL) }
            .map_err(|e| fail(format!("lacks the symbol {}: {e}", abi::SYMBOL)))?;
        let table: *const CmfPlugin = *table;
        if table.is_null() || !table.is_aligned() {
            return Err(fail(format!("its symbol {} leads nowhere", abi::SYMBOL)));
        }
        // SAFETY: both numbers come first in every version; what follows has another form in another major one,
        // so that a reference to all of it waits for the check.
        let version =
            unsafe { ((&raw const (*table).abi_major).read(), (&raw const (*table).abi_minor).read()) };
        check_version(version, (abi::MAJOR, abi::MINOR)).map_err(&fail)?;
        // SAFETY: as above, and this version is understood.
        let table: &'static CmfPlugin = unsafe { &*table };
        // SAFETY: by the header both are text that lives as long as the process.
        let text = |what, from| unsafe { text_of(what, from) }.map_err(|e| fail(e.text));
        let id =
            Identity { name: text("its name", table.name)?, version: text("its version", table.version)? };
        Ok(Library { table, path: Box::leak(path.clone().into_boxed_path()), id: Box::leak(Box::new(id)) })
    }

    /// The library file.
    pub fn path(&self) -> &'static Path {
        self.path
    }

    /// The plugin's own name.
    pub fn name(&self) -> &'static str {
        &self.id.name
    }

    /// The plugin's own version.
    pub fn version(&self) -> &'static str {
        &self.id.version
    }

    /// Major and minor version of the interface that the plugin needs.
    pub fn abi(&self) -> (u32, u32) {
        (self.table.abi_major, self.table.abi_minor)
    }

    /// Whether the plugin answers an id at all.
    pub fn answers(&self, id: &str) -> bool {
        !self.factory(id).is_null()
    }

    fn factory(&self, id: &str) -> *const std::ffi::c_void {
        let id = CString::new(id).unwrap_or_default();
        // SAFETY: the id is text that ends in NUL.
        self.table.get_factory.map_or(std::ptr::null(), |f| unsafe { f(id.as_ptr()) })
    }

    /// The factory of an id, whose table is a `T`.
    ///
    /// # Safety
    /// `T` is the table that the header gives this id.
    unsafe fn table_of<T: 'static>(&self, id: &str) -> Option<&'static T> {
        let table = self.factory(id).cast::<T>();
        // SAFETY: by the header such a table is constant and lives as long as the process.
        if table.is_aligned() { unsafe { table.as_ref() } } else { None }
    }

    /// The energies' factory, if there is one.
    pub fn energies(&self) -> Option<&'static CmfEnergyFactory> {
        // SAFETY: the header's table of this id.
        unsafe { self.table_of(abi::ENERGY) }
    }

    /// The data sets' factory, if there is one.
    pub fn datasets(&self) -> Option<&'static CmfDatasetFactory> {
        // SAFETY: the header's table of this id.
        unsafe { self.table_of(abi::DATASET) }
    }

    /// The tasks' factory, if there is one.
    pub fn tasks(&self) -> Option<&'static CmfTaskFactory> {
        // SAFETY: the header's table of this id.
        unsafe { self.table_of(abi::TASK) }
    }

    /// What the library offers of a kind.
    pub fn offers(&self, kind: KindOfPlugin) -> Result<Vec<Offer>> {
        let table = match kind {
            KindOfPlugin::Energy => self.energies().map(|t| (t.count, t.entries)),
            KindOfPlugin::DataSet => self.datasets().map(|t| (t.count, t.entries)),
            KindOfPlugin::Task => self.tasks().map(|t| (t.count, t.entries)),
        };
        table.map_or(Ok(Vec::new()), |(count, entries)| self.read_entries(count, entries))
    }

    fn read_entries(&self, count: usize, entries: *const CmfEntry) -> Result<Vec<Offer>> {
        let fail = |message: String| Error::file(self.path, message);
        if count == 0 || count > MOST_ENTRIES || entries.is_null() || !entries.is_aligned() {
            return Err(fail(format!(
                "a factory says that it has {count} entries at {entries:p}, expected 1 to {MOST_ENTRIES}"
            )));
        }
        // SAFETY: by the header there are `count` entries that live as long as the process.
        let entries = unsafe { std::slice::from_raw_parts(entries, count) };
        let mut offers: Vec<Offer> = Vec::with_capacity(count);
        for entry in entries {
            // SAFETY: by the header the three are text that lives as long as the process.
            let text = |what, from| unsafe { text_of(what, from) }.map_err(|e| fail(e.text));
            let offer = Offer {
                name: text("the name of an entry", entry.name)?,
                about: text("the description of an entry", entry.about)?,
                parameters: text("the parameters of an entry", entry.parameters)?,
            };
            let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if offer.name.is_empty() || offer.name.len() > 100 || !offer.name.chars().all(letter) {
                return Err(fail(format!(
                    "an entry is named {:?}; a name is lower case letters, digits and hyphens",
                    offer.name
                )));
            }
            if offers.iter().any(|o| o.name == offer.name) {
                return Err(fail(format!("offers {} twice", offer.name)));
            }
            Schema::parse(&offer.parameters).map_err(|e| fail(format!("{}: {e}", offer.name)))?;
            offers.push(offer);
        }
        Ok(offers)
    }
}

/// Whether a host of the version `ours` understands a plugin that needs `needed`, each (major, minor).
pub(super) fn check_version(needed: (u32, u32), ours: (u32, u32)) -> Result<(), String> {
    let ((major, minor), (most, least)) = (needed, ours);
    let supported = format!("this program supports {most}.0 to {most}.{least}");
    if major != most {
        return Err(format!(
            "was built for plugin interface {major}.{minor}, {supported}: {}",
            if major < most {
                "build the plugin again with the header or crate of this release"
            } else {
                "use a newer cmf-cli, or a build of the plugin for this one"
            }
        ));
    }
    if minor > least {
        return Err(format!(
            "needs plugin interface {major}.{minor}, {supported}: use a newer cmf-cli, or an older build of the plugin"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_with_what_to_do() {
        assert!(check_version((1, 0), (1, 0)).is_ok());
        let e = check_version((0, 3), (1, 0)).unwrap_err();
        assert!(
            e.contains("built for plugin interface 0.3") && e.contains("supports 1.0 to 1.0: build"),
            "{e}"
        );
        assert!(check_version((2, 0), (1, 0)).unwrap_err().contains("use a newer cmf-cli"));
        assert!(check_version((1, 1), (1, 0)).unwrap_err().contains("needs plugin interface 1.1"));
    }

    /// New powers are new ids, which raise the minor version of the host: older plugins go on.
    #[test]
    fn a_plugin_of_today_is_understood_by_later_minor_versions() {
        for later in [(1, 1), (1, 7)] {
            assert!(check_version((abi::MAJOR, abi::MINOR), later).is_ok());
        }
        let e = check_version((1, 9), (1, 7)).unwrap_err();
        assert!(e.contains("supports 1.0 to 1.7: use a newer cmf-cli"), "{e}");
    }

    #[test]
    fn what_is_no_library_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.so");
        for (bytes, words) in [
            (&b""[..], "is an empty file"),
            (b"hello plugin, hello", "is a text file"),
            (b"\x00\xff\xfe\x81\x82", "of an unknown kind"),
            (b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\0", "is damaged"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let e = inspect(&path).unwrap_err().to_string();
            assert!(e.contains("x.so: ") && e.contains(words), "{e}");
        }
        assert!(inspect(folder.path()).unwrap_err().to_string().contains("is no file"));
        assert!(inspect(&folder.path().join("none")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn files_and_folders_that_anyone_may_write_are_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.so");
        std::fs::write(&path, "text").unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
        };
        set(&path, 0o666);
        assert!(inspect(&path).unwrap_err().to_string().contains("every user may write this file"));
        set(&path, 0o644);
        set(folder.path(), 0o777);
        assert!(inspect(&path).unwrap_err().to_string().contains("every user may replace files"));
        set(folder.path(), 0o1777);
        assert!(inspect(&path).unwrap_err().to_string().contains("text file"));
        assert!(check_folder(folder.path()).unwrap_err().contains("every user may put files"));
        set(folder.path(), 0o755);
        assert!(check_folder(folder.path()).is_ok());
        // A link in such a folder is as bad, wherever it leads.
        let open = tempfile::tempdir().unwrap();
        let link = open.path().join("x.so");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(inspect(&link).unwrap_err().to_string().contains("text file"));
        set(open.path(), 0o777);
        assert!(inspect(&link).unwrap_err().to_string().contains("every user may replace files"));
    }
}
