//! `weald::fs`: std's functions with std's results and errors. A file that makes one thread wait makes no other
//! thread wait.

use std::ffi::CString;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use weald::fs::{self, DirBuilder, File, OpenOptions};

use crate::support::{MS, Mark, each_mode_on, everywhere, source_of};

/// A folder for one test. It is removed when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(format!("weald-it-{process}-{number}"));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn bytes(count: u32) -> Vec<u8> {
    (0..count).flat_map(u32::to_le_bytes).collect()
}

#[test]
fn files_are_written_read_named_and_removed() {
    everywhere(|| {
        let folder = Folder::new();
        let (one, two) = (folder.path("one"), folder.path("two"));
        fs::write(&one, "text").unwrap();
        assert_eq!(fs::read(&one).unwrap(), b"text");
        assert_eq!(fs::read_to_string(&one).unwrap(), "text");
        assert_eq!(fs::metadata(&one).unwrap().len(), 4);
        assert_eq!(fs::copy(&one, &two).unwrap(), 4);
        fs::rename(&two, folder.path("three")).unwrap();
        assert!(!fs::exists(&two).unwrap());
        fs::hard_link(&one, &two).unwrap();
        fs::symlink(&one, folder.path("link")).unwrap();
        assert_eq!(fs::read_link(folder.path("link")).unwrap(), one);
        let link = fs::symlink_metadata(folder.path("link")).unwrap();
        assert!(link.is_symlink());
        let real = fs::canonicalize(folder.path("link")).unwrap();
        assert_eq!(real, fs::canonicalize(&one).unwrap());
        let mut permissions = fs::metadata(&one).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&one, permissions).unwrap();
        assert!(fs::metadata(&one).unwrap().permissions().readonly());
        DirBuilder::new()
            .recursive(true)
            .create(folder.path("a/b"))
            .unwrap();
        fs::create_dir_all(folder.path("a/b/c")).unwrap();
        fs::remove_dir(folder.path("a/b/c")).unwrap();
        fs::remove_dir_all(folder.path("a")).unwrap();
        let mut names: Vec<_> = fs::read_dir(&folder.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["link", "one", "three", "two"]);
        fs::remove_file(&two).unwrap();
        assert!(!fs::exists(&two).unwrap());
    });
}

#[test]
fn an_open_file_reads_writes_and_seeks_as_stds() {
    everywhere(|| {
        let folder = Folder::new();
        let (path, content) = (folder.path("file"), bytes(100_000));
        let mut file = File::create(&path).unwrap();
        file.write_all(&content).unwrap();
        file.sync_all().unwrap();
        assert_eq!(file.metadata().unwrap().len(), 400_000);
        let refused = file.read(&mut [0; 10]).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
        drop(file);

        let mut file = File::open(&path).unwrap();
        let (mut read, mut piece) = (Vec::new(), [0; 7000]);
        loop {
            match file.read(&mut piece).unwrap() {
                0 => break,
                count => read.extend_from_slice(&piece[..count]),
            }
        }
        assert_eq!(read, content);
        assert_eq!(file.seek(SeekFrom::End(-8)).unwrap(), 399_992);
        let mut twin = file.try_clone().unwrap();
        let mut tail = Vec::new();
        assert_eq!(twin.read_to_end(&mut tail).unwrap(), 8);
        assert_eq!(tail, content[399_992..]);
        // Both handles have the same position.
        assert_eq!(file.stream_position().unwrap(), 400_000);
        let mut middle = [0; 4];
        file.read_exact_at(&mut middle, 4 * 5000).unwrap();
        assert_eq!(middle, 5000_u32.to_le_bytes());
        assert_eq!(file.stream_position().unwrap(), 400_000);
        let ended = file.read_exact_at(&mut middle, 399_998).unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::UnexpectedEof);

        let mut log = OpenOptions::new().append(true).open(&path).unwrap();
        log.write_all(b"the end").unwrap();
        log.write_all_at(b"x", 0).unwrap();
        log.set_len(10).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 10);
        let file: std::fs::File = log.into();
        let file = File::from(file);
        assert_eq!(file.metadata().unwrap().len(), 10);
    });
}

#[test]
fn errors_have_stds_kinds() {
    everywhere(|| {
        let folder = Folder::new();
        let path = folder.path("file");
        let kind = |error: std::io::Error| error.kind();
        assert_eq!(kind(File::open(&path).unwrap_err()), ErrorKind::NotFound);
        assert_eq!(kind(fs::read(&path).unwrap_err()), ErrorKind::NotFound);
        assert_eq!(kind(fs::read_dir(&path).unwrap_err()), ErrorKind::NotFound);
        fs::write(&path, [0xff, 0xfe]).unwrap();
        let again = File::create_new(&path).unwrap_err();
        assert_eq!(kind(again), ErrorKind::AlreadyExists);
        let text = fs::read_to_string(&path).unwrap_err();
        assert_eq!(kind(text), ErrorKind::InvalidData);
        let below = fs::read(path.join("below")).unwrap_err();
        assert_eq!(kind(below), ErrorKind::NotADirectory);
        let full = fs::remove_dir(&folder.0).unwrap_err();
        assert_eq!(kind(full), ErrorKind::DirectoryNotEmpty);
        let options = OpenOptions::new().open(&path).unwrap_err();
        assert_eq!(kind(options), ErrorKind::InvalidInput);
    });
}

#[test]
fn an_exception_is_the_error_of_the_next_call_and_nothing_has_happened() {
    everywhere(|| {
        let folder = Folder::new();
        let path = folder.path("file");
        weald::current().throw(Mark(1));
        let error = fs::write(&path, "text").unwrap_err();
        assert_eq!(source_of::<Mark>(&error), Some(&Mark(1)));
        assert!(!fs::exists(&path).unwrap());

        fs::write(&path, "text").unwrap();
        let mut file = File::open(&path).unwrap();
        weald::current().throw(Mark(2));
        let error = file.read(&mut [0; 10]).unwrap_err();
        assert_eq!(source_of::<Mark>(&error), Some(&Mark(2)));
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
    });
}

#[test]
fn a_folder_of_a_thousand_files_is_listed_whole() {
    everywhere(|| {
        let folder = Folder::new();
        for number in 0..1000 {
            std::fs::File::create(folder.path(&number.to_string())).unwrap();
        }
        let mut numbers: Vec<u32> = fs::read_dir(&folder.0)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                assert!(entry.file_type().unwrap().is_file());
                entry.file_name().into_string().unwrap().parse().unwrap()
            })
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
    });
}

#[test]
fn a_named_pipe_makes_only_its_own_thread_wait_and_a_limit_ends_it() {
    each_mode_on(1, |rt| {
        rt.run(|| {
            let folder = Folder::new();
            let path = folder.path("pipe");
            let name = CString::new(path.to_str().unwrap()).unwrap();
            // SAFETY: the name ends with a zero.
            assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
            let writer = std::thread::spawn({
                let path = path.clone();
                // This runs on an OS thread: in `Pinned` a call inside `blocking` delays threads that have started on
                // the same OS thread.
                move || File::options().write(true).open(path).unwrap()
            });
            let mut reader = File::open(&path).unwrap();
            let mut writer = writer.join().unwrap();
            let mut buffer = [0; 5];
            let late = weald::timeout(20 * MS, || reader.read(&mut buffer).unwrap_err());
            assert!(late.is_err());
            let sender = weald::spawn(move || writer.write_all(b"bytes"));
            reader.read_exact(&mut buffer).unwrap();
            assert_eq!(&buffer, b"bytes");
            sender.join().unwrap().unwrap();
            assert_eq!(reader.read(&mut buffer).unwrap(), 0);
        });
    });
}
