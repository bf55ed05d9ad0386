//! Which file transfer a command line starts, if it is plainly one.
//!
//! The login's shell on the target reads the line, and we run none to find out what it would make of it. So a line is
//! understood only if every shell reads it alike: words, with quotes and escapes that mean one thing, and patterns in
//! operands. Whatever else there is in it (variables, substitutions, several commands) makes it a command like any other.

use super::scp::Direction;

/// A command line, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Understood {
    /// OpenSSH's server, started by hand instead of as a subsystem.
    Sftp,
    /// The far end of `scp -O`.
    Scp { direction: Direction, operand: String },
    /// The far end of rsync. `plain`: its options do nothing but move files in that direction.
    Rsync { direction: Direction, plain: bool },
    /// Anything else.
    Other,
}

/// Where the programs are that are what their name says. A `./scp` can be anything.
const FOLDERS: [&str; 10] = [
    "",
    "/bin/",
    "/usr/bin/",
    "/usr/local/bin/",
    "/usr/lib/",
    "/usr/lib/openssh/",
    "/usr/lib/ssh/",
    "/usr/libexec/",
    "/usr/libexec/openssh/",
    "/usr/local/libexec/",
];

/// A word of a command line, as the shell hands it to the program.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    text: String,
    /// The shell puts in its place whatever fits.
    pattern: bool,
}

impl Word {
    /// What it says, if it says it literally.
    fn literal(&self) -> Option<&str> {
        (!self.pattern).then_some(self.text.as_str())
    }
}

/// Judges a command line.
pub(super) fn understand(line: &[u8]) -> Understood {
    understand_words(line).unwrap_or(Understood::Other)
}

fn understand_words(line: &[u8]) -> Option<Understood> {
    let words = words(line)?;
    let (program, rest) = words.split_first()?;
    let program = program.literal()?;
    let named = |name: &str| program.strip_suffix(name).is_some_and(|folder| FOLDERS.contains(&folder));
    if named("sftp-server") || program == "internal-sftp" {
        Some(Understood::Sftp)
    } else if named("scp") {
        scp(rest)
    } else if named("rsync") {
        rsync(rest)
    } else {
        None
    }
}

/// `scp -t FOLDER`, `scp -f FILE…`, with the flags that OpenSSH's and PuTTY's clients send.
fn scp(words: &[Word]) -> Option<Understood> {
    let (mut to, mut from, mut rest) = (false, false, words);
    while let Some((word, others)) = rest.split_first() {
        let Some(flags) = word.text.strip_prefix('-').filter(|flags| !flags.is_empty()) else { break };
        rest = others;
        if word.literal()? == "--" {
            break;
        }
        for flag in flags.chars() {
            match flag {
                't' => to = true,
                'f' => from = true,
                'r' | 'p' | 'd' | 'v' | 'q' => {}
                _ => return None,
            }
        }
    }
    let operand = rest.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    match (to, from, rest.len()) {
        (true, false, 1) => Some(Understood::Scp { direction: Direction::Upload, operand }),
        (false, true, 1..) => Some(Understood::Scp { direction: Direction::Download, operand }),
        _ => None,
    }
}

/// Options of `rsync --server` that change nothing but what is moved, and how. (Others write logs, remove what was sent, or
/// run a daemon.)
const HARMLESS: [&str; 43] = [
    "append",
    "append-verify",
    "block-size",
    "bwlimit",
    "checksum-choice",
    "checksum-seed",
    "compress-choice",
    "compress-level",
    "copy-unsafe-links",
    "debug",
    "existing",
    "fuzzy",
    "iconv",
    "ignore-errors",
    "ignore-existing",
    "ignore-missing-args",
    "info",
    "inplace",
    "list-only",
    "log-format",
    "max-alloc",
    "max-size",
    "min-size",
    "modify-window",
    "munge-links",
    "new-compress",
    "no-implied-dirs",
    "no-inc-recursive",
    "no-r",
    "no-W",
    "no-whole-file",
    "numeric-ids",
    "old-compress",
    "open-noatime",
    "out-format",
    "partial",
    "preallocate",
    "safe-links",
    "size-only",
    "skip-compress",
    "stats",
    "timeout",
    "whole-file",
];

/// Further ones, where things may be written on the target.
const HARMLESS_UPLOADS: [&str; 22] = [
    "backup-dir",
    "chmod",
    "chown",
    "compare-dest",
    "copy-dest",
    "delay-updates",
    "delete",
    "delete-after",
    "delete-before",
    "delete-delay",
    "delete-during",
    "delete-excluded",
    "delete-missing-args",
    "fake-super",
    "force",
    "groupmap",
    "link-dest",
    "max-delete",
    "mkpath",
    "partial-dir",
    "suffix",
    "temp-dir",
];

fn rsync(words: &[Word]) -> Option<Understood> {
    let (first, rest) = words.split_first()?;
    if first.literal()? != "--server" {
        return None;
    }
    let sends = rest.first().and_then(Word::literal) == Some("--sender");
    let direction = if sends { Direction::Download } else { Direction::Upload };
    let rest = rest.get(usize::from(sends)..).unwrap_or_default();
    let (options, operands) = rest.split_at(rest.iter().take_while(|word| word.text.starts_with('-')).count());
    // rsync takes options behind operands too, and a pattern may stand for a file that is named like one.
    let option =
        |word: &Word| word.text.starts_with('-') || word.pattern && word.text.starts_with(['*', '?', '[', '{']);
    let plain = options.iter().all(|word| word.literal().is_some_and(|word| harmless(word, direction)))
        && !operands.iter().any(option);
    Some(Understood::Rsync { direction, plain })
}

fn harmless(option: &str, direction: Direction) -> bool {
    if let Some(long) = option.strip_prefix("--") {
        let name = long.split_once('=').map_or(long, |(name, _)| name);
        return HARMLESS.contains(&name) || direction == Direction::Upload && HARMLESS_UPLOADS.contains(&name);
    }
    // Behind `e` comes what the two can do. `s` before it: the arguments come later, where nobody judges them.
    let flags = option.split_once('e').map_or(option, |(flags, _)| flags);
    !flags.contains(['s', 'M', 'T', 'f'])
}

/// The line as words; `None` if a shell could make something else of it.
fn words(line: &[u8]) -> Option<Vec<Word>> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = Vec::new();
    let mut current: Option<Word> = None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == ' ' {
            words.extend(current.take());
            continue;
        }
        let word = current.get_or_insert(Word { text: String::new(), pattern: false });
        match c {
            '\'' | '"' => {
                let (quoted, after) = rest.as_str().split_once(c)?;
                // csh takes `!` in every kind of quotes, and fish a backslash.
                let means_more =
                    |q: char| q.is_control() || matches!(q, '!' | '\\') || c == '"' && matches!(q, '$' | '`');
                if quoted.contains(means_more) {
                    return None;
                }
                word.text.push_str(quoted);
                rest = after.chars();
            }
            '\\' => {
                // A letter behind a backslash is no letter to every shell.
                let escaped = rest.next().filter(|c| !c.is_control() && !c.is_alphanumeric() && *c != '!')?;
                word.text.push(escaped);
            }
            '*' | '?' | '[' | ']' | '{' | '}' | '~' => {
                word.pattern = true;
                word.text.push(c);
            }
            '/' | '.' | '_' | '-' | '+' | ',' | ':' | '=' | '@' | '%' => word.text.push(c),
            c if c.is_alphanumeric() => word.text.push(c),
            _ => return None,
        }
    }
    words.extend(current);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scp(direction: Direction, operand: &str) -> Understood {
        Understood::Scp { direction, operand: operand.to_owned() }
    }

    #[test]
    fn transfers_are_known_by_their_command_lines() {
        let up = |operand| scp(Direction::Upload, operand);
        let down = |operand| scp(Direction::Download, operand);
        for (line, is) in [
            ("scp -t /tmp", up("/tmp")),
            ("scp -r -p -d -t -- -odd", up("-odd")),
            ("/usr/bin/scp -rpt '/tmp/a b'", up("/tmp/a b")),
            ("scp -t /tmp/a\\ b\\$c", up("/tmp/a b$c")),
            ("scp -v -f *.txt ~/x", down("*.txt ~/x")),
            ("scp -f \"it's\"", down("it's")),
            ("scp -f grüße", down("grüße")),
            ("/usr/lib/openssh/sftp-server -R", Understood::Sftp),
            ("internal-sftp", Understood::Sftp),
        ] {
            assert_eq!(understand(line.as_bytes()), is, "{line}");
        }
    }

    #[test]
    fn a_line_that_a_shell_could_read_otherwise_is_no_transfer() {
        for line in [
            "scp -f $(cat /etc/passwd)",
            "scp -f `id`",
            "scp -f \"$HOME\"",
            "scp -f a; cat > b",
            "scp -f a && sh",
            "scp -f a | tee b",
            "scp -f a > b",
            "scp -f a\nsh",
            "scp -f 'a",
            "scp -f a\\",
            "scp -f a\\n",
            "scp -t -f a",
            "scp a b",
            "scp -S sh -f a",
            "scp -t a b",
            "scp -? a",
            "X=1 scp -f a",
            "./scp -f a",
            "/tmp/scp -t a",
            "/tmp/sftp-server",
            "sc*p -f a",
            "*/scp -f a",
            "rsync --daemon --server .",
            "rsync a b",
            "cat",
            "",
            "#scp -f a",
            "scp -f a #",
            "scp -f !!",
        ] {
            assert_eq!(understand(line.as_bytes()), Understood::Other, "{line}");
        }
        assert_eq!(understand(b"scp -f \xff"), Understood::Other);
    }

    #[test]
    fn rsync_is_plain_only_with_options_that_move_files_one_way() {
        use Direction::{Download, Upload};
        for (line, direction, plain) in [
            ("rsync --server --sender -logDtpre.iLsfxCIvu . /srv/", Download, true),
            ("rsync --server -vlogDtprze.iLsfxCIvu --delete --partial . /srv/", Upload, true),
            ("rsync --server --sender -vnlogDtprze.iLsfxCIvu --numeric-ids --bwlimit=100 . a 'b c'", Download, true),
            ("rsync --server --sender -se.iLsfxCIvu", Download, false),
            ("rsync --server -s", Upload, false),
            ("rsync --server --sender --remove-source-files -logDtpre.iLsf . a", Download, false),
            ("rsync --server --sender --log-file=.bashrc -logDtpre.iLsf . a", Download, false),
            ("rsync --server --sender --delete -logDtpre.iLsf . a", Download, false),
            ("rsync --server --daemon --config=x .", Upload, false),
            ("rsync --server -logDtpre.iLsf --sender . a", Upload, false),
            ("rsync --server --sender -logDtpre.iLsf . a --daemon", Download, false),
            ("rsync --server --sender -logDtpre.iLsf . *", Download, false),
        ] {
            assert_eq!(understand(line.as_bytes()), Understood::Rsync { direction, plain }, "{line}");
        }
    }
}
