//! Writing files so that a path holds the old content or the new one, whole, and never a part.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Writes `path` through a temporary file in the same folder, which is synced and then renamed.
///
/// On any error (a missing or read-only folder, a full disk, a failing `write`) nothing is left behind
/// and a file that was there stays as it was. A symbolic link at `path` is replaced, not followed; what
/// is neither a file nor a link (a folder, a device) is refused.
///
/// # Errors
/// [`Error::File`] with the path and the cause.
pub fn write_atomically<E: Display>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>,
) -> Result<()> {
    let fail = |e: &dyn Display| Error::file(path, format!("cannot write: {e}"));
    // Renaming over a device would replace the device itself.
    if let Ok(found) = path.symlink_metadata()
        && !found.is_file()
        && !found.is_symlink()
    {
        let kind = if found.is_dir() { "a folder" } else { "a device or pipe" };
        return Err(fail(&format!("there is {kind} of this name; choose the name of a file")));
    }
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(fail(&format!("the folder {} does not exist; create it first", folder.display())));
    }
    let (file, temporary) = temporary_in(folder).map_err(|e| fail(&e))?.into_parts();
    let mut writer = BufWriter::new(file);
    write(&mut writer).map_err(|e| fail(&e))?;
    writer.flush().map_err(|e| fail(&e))?;
    writer.get_ref().sync_all().map_err(|e| fail(&e))?;
    temporary.persist(path).map_err(|e| fail(&e.error))
}

/// A temporary file that gets an ordinary file's permissions, not the owner-only ones of a secret.
fn temporary_in(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".cmf-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The process's umask still applies.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io;

    fn entries(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
        write_atomically(path, |w| w.write_all(bytes))
    }

    #[test]
    fn replaces_the_old_file_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        write_bytes(&path, b"old").unwrap();
        write_bytes(&path, b"newer").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer");
        assert_eq!(entries(folder.path()), ["model.onnx"]);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_an_ordinary_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write_bytes(&ours, b"x").unwrap();
        fs::write(&plain, b"x").unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[test]
    fn a_failing_writer_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        write_bytes(&path, b"old").unwrap();
        let e = write_atomically(&path, |w| {
            w.write_all(&[0; 100_000])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert_eq!(e.to_string(), format!("{}: cannot write: no storage space", path.display()));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(entries(folder.path()), ["model.onnx"]);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("a.png");
        let e = write_bytes(&path, b"x").unwrap_err().to_string();
        assert!(e.contains("a.png") && e.contains("missing does not exist"), "{e}");
        assert!(entries(folder.path()).is_empty());
    }

    #[test]
    fn a_folder_of_the_same_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::create_dir(&path).unwrap();
        let e = write_bytes(&path, b"x").unwrap_err().to_string();
        assert!(e.contains("there is a folder of this name"), "{e}");
        assert_eq!(entries(folder.path()), ["out"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_is_not_replaced_and_a_read_only_folder_is_an_error() {
        let e = write_bytes(Path::new("/dev/full"), b"x").unwrap_err().to_string();
        assert!(e.contains("/dev/full") && e.contains("device"), "{e}");
        // Not even root can create files in sysfs.
        let e = write_bytes(Path::new("/sys/a.png"), b"x").unwrap_err().to_string();
        assert!(e.starts_with("/sys/a.png: cannot write: "), "{e}");
    }
}
