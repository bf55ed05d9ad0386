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
    /// The far end of rsync.
    Rsync { direction: Direction, does: Does },
    /// Anything else.
    Other,
}

/// What the options of rsync make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// Content goes in its direction, and nothing of it in the other.
    OneWay,
    /// An upload that would, with `-W`. Without it the receiver tells checksums of small blocks of what it has, and the
    /// sender chooses the blocks and the seed: so any file can be read that way.
    Sums,
    /// Perhaps more.
    More,
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

/// The transfer that a line starts of which [`understand`] made nothing, as far as its words give it away: a variable in a
/// path, or `sudo` before it. It is for those who mean no harm; a shell can hide any name.
pub(super) fn unjudged(line: &[u8]) -> Option<&'static str> {
    let line: String = String::from_utf8_lossy(line).chars().filter(|c| !matches!(c, '\'' | '"' | '\\')).collect();
    let apart = |c: char| c.is_whitespace() || c.is_control() || ";|&()<>`$={}!#".contains(c);
    let words: Vec<&str> = line.split(apart).map(|word| word.rsplit('/').next().unwrap_or(word)).collect();
    let far_end = |word: &str| {
        word == "--server"
            || word.strip_prefix('-').is_some_and(|flags| !flags.starts_with('-') && flags.contains(['t', 'f']))
    };
    let moves = words.iter().any(|word| far_end(word));
    words.iter().find_map(|word| match *word {
        "sftp-server" | "internal-sftp" => Some("sftp"),
        "scp" if moves => Some("scp"),
        "rsync" if moves => Some("rsync"),
        _ => None,
    })
}

/// Options of `rsync --server` that change nothing but what is moved, and how. (Others write logs, remove what was sent, or
/// run a daemon.)
const HARMLESS: [&str; 31] = [
    "bwlimit",
    "compress-choice",
    "compress-level",
    "copy-unsafe-links",
    "existing",
    "ignore-errors",
    "ignore-existing",
    "ignore-missing-args",
    "inplace",
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

/// Further ones, where the target sends. A receiver would tell something of what it has.
const HARMLESS_DOWNLOADS: [&str; 12] = [
    "append",
    "append-verify",
    "block-size",
    "checksum-choice",
    "checksum-seed",
    "debug",
    "fuzzy",
    "iconv",
    "info",
    "list-only",
    "no-W",
    "no-whole-file",
];

/// Further ones, where things may be written on the target. Not here: other folders to compare with; and `delete`, since the
/// receiver then reads files as filter rules, and before rsync 3.4 its errors print them.
const HARMLESS_UPLOADS: [&str; 9] =
    ["backup-dir", "chmod", "chown", "fake-super", "force", "groupmap", "mkpath", "suffix", "temp-dir"];

/// Letters of a receiver that take no value and tell nothing of content. Not here: `c` and `y` compare with what there is, `m`
/// takes filter rules.
const HARMLESS_LETTERS: &str = "vqlLkKJOnWHuogDtUNpEAXrRSdIxzbih";

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
    let does = if operands.iter().any(option) {
        Does::More
    } else {
        match direction {
            Direction::Download => sender(options),
            Direction::Upload => receiver(options),
        }
    };
    Some(Understood::Rsync { direction, does })
}

/// The name of a long option.
fn long(option: &Word) -> Option<&str> {
    let long = option.literal()?.strip_prefix("--")?;
    Some(long.split_once('=').map_or(long, |(name, _)| name))
}

fn sender(options: &[Word]) -> Does {
    let harmless = |option: &Word| match (long(option), option.literal()) {
        (Some(name), _) => HARMLESS.contains(&name) || HARMLESS_DOWNLOADS.contains(&name),
        // Behind `e` comes what the two can do. `s` before it: the arguments come later, where nobody judges them.
        (None, Some(letters)) => {
            !letters.split_once('e').map_or(letters, |(flags, _)| flags).contains(['s', 'M', 'T', 'f'])
        }
        (None, None) => false,
    };
    if options.iter().all(harmless) { Does::OneWay } else { Does::More }
}

/// As rsync's clients write it: first the letters, of which none takes the next word for its value, then long options.
fn receiver(options: &[Word]) -> Does {
    let Some((letters, longs)) = options.split_first() else { return Does::Sums };
    let Some(letters) = letters.literal().and_then(|word| word.strip_prefix('-')) else { return Does::More };
    let (flags, can) = letters.split_once('e').unwrap_or((letters, "."));
    let named = |name| HARMLESS.contains(&name) || HARMLESS_UPLOADS.contains(&name);
    if can.is_empty()
        || !flags.chars().all(|flag| HARMLESS_LETTERS.contains(flag))
        || !longs.iter().all(|option| long(option).is_some_and(named))
    {
        Does::More
    } else if flags.contains('W') {
        Does::OneWay
    } else {
        Does::Sums
    }
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
    fn rsync_goes_one_way_only_with_options_that_tell_nothing_in_the_other() {
        use Direction::{Download, Upload};
        use Does::{More, OneWay, Sums};
        for (line, direction, does) in [
            ("rsync --server --sender -logDtpre.iLsfxCIvu . /srv/", Download, OneWay),
            ("rsync --server -vlWogDtprze.iLsfxCIvu --partial . /srv/", Upload, OneWay),
            ("rsync --server -vlogDtprze.iLsfxCIvu --partial . /srv/", Upload, Sums),
            ("rsync --server . /srv/", Upload, Sums),
            ("rsync --server -B1lWogDtpre.iLsfxCIvu . /srv/", Upload, More),
            ("rsync --server -lWogDtpre.iLsfxCIvu -B1 . /srv/", Upload, More),
            ("rsync --server -lWogDtpre.iLsfxCIvu --no-W . /srv/", Upload, More),
            ("rsync --server -lWogDtpre.iLsfxCIvu --no-whole-file . /srv/", Upload, More),
            ("rsync --server -lWogDtpre.iLsfxCIvu --block-size=1 . /srv/", Upload, More),
            ("rsync --server -lWogDtpre.iLsfxCIvu --checksum-seed=1 . /srv/", Upload, More),
            ("rsync --server -lWogDtpre.iLsfxCIvu --append-verify . /srv/", Upload, More),
            ("rsync --server -lWogDtpre.iLsfxCIvu --compare-dest=/etc . /srv/", Upload, More),
            ("rsync --server -lWogDtpre.iLsfxCIvu --copy-dest=/etc . /srv/", Upload, More),
            ("rsync --server -lWogDtpre.iLsfxCIvu --link-dest=/etc . /srv/", Upload, More),
            ("rsync --server -lWogDtpre.iLsfxCIvu --delete . /srv/", Upload, More),
            ("rsync --server -lWyogDtpre.iLsfxCIvu . /srv/", Upload, More),
            ("rsync --server -lWogcDtpre.iLsfxCIvu . /srv/", Upload, More),
            ("rsync --server -lWmogDtpre.iLsfxCIvu . /srv/", Upload, More),
            ("rsync --server -logDtpre -W . /srv/", Upload, More),
            ("rsync --server --suffix -W . /srv/", Upload, More),
            ("rsync --server -r --suffix -W . /srv/", Upload, More),
            ("rsync --server --sender -vnlogDtprze.iLsfxCIvu --numeric-ids --bwlimit=100 . a 'b c'", Download, OneWay),
            ("rsync --server --sender -se.iLsfxCIvu", Download, More),
            ("rsync --server -s", Upload, More),
            ("rsync --server --sender --remove-source-files -logDtpre.iLsf . a", Download, More),
            ("rsync --server --sender --log-file=.bashrc -logDtpre.iLsf . a", Download, More),
            ("rsync --server --sender --delete -logDtpre.iLsf . a", Download, More),
            ("rsync --server --daemon --config=x .", Upload, More),
            ("rsync --server -logDtpre.iLsf --sender . a", Upload, More),
            ("rsync --server --sender -logDtpre.iLsf . a --daemon", Download, More),
            ("rsync --server --sender -logDtpre.iLsf . *", Download, More),
        ] {
            assert_eq!(understand(line.as_bytes()), Understood::Rsync { direction, does }, "{line}");
        }
    }

    #[test]
    fn a_transfer_that_cannot_be_judged_is_known_by_its_words() {
        for (line, is) in [
            ("scp -f $HOME/f", Some("scp")),
            ("scp -r -p -t a!b", Some("scp")),
            ("scp -t '#f'", Some("scp")),
            ("sudo /usr/bin/'scp' -prt /srv", Some("scp")),
            ("cd /tmp;scp -f x", Some("scp")),
            ("env rsync --server -logDtpre.iLsf . /srv", Some("rsync")),
            ("sudo rsync --server --sender -logDtpre.iLsf . /root", Some("rsync")),
            ("rsync --server --sender -logDtpre.iLsf . $HOME/f", Some("rsync")),
            ("exec /usr/lib/openssh/sftp-server", Some("sftp")),
            ("sudo internal-sftp", Some("sftp")),
            ("man scp", None),
            ("apt install rsync", None),
            ("rsync --version", None),
            ("cat f | tail -f", None),
            ("tar -tf scp.tar", None),
        ] {
            assert_eq!(unjudged(line.as_bytes()), is, "{line}");
        }
        assert_eq!(unjudged(b"scp -f \xff"), Some("scp"));
    }
}
