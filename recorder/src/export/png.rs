//! A picture of one moment: the screen as it was, or the last lines of a session that had none.
//!
//! Drawn with a bitmap font that is part of the program, so that it looks the same everywhere; a character that the font does not
//! have is an empty frame. Lines of pixels are written as they are made: memory is one of them, however large the screen was.

use super::{ExportError, title};
use crate::{
    film::Film,
    picture::{Glyph, Ink, Look, Picture},
};
use png::{BitDepth, ColorType, Encoder};
use spleen_font::FONT_12X24;
use std::{
    collections::HashMap,
    io::{self, Write},
    time::Duration,
};

/// Pixels of a cell.
const WIDTH: usize = 12;
const HEIGHT: usize = 24;
/// The lowest lines of letters without a descender, and half their height.
const UNDERLINE: usize = 20;
const STRIKE: usize = 12;

type Pixel = [u8; 3];

/// What a terminal is taken to have for the colours that are its own.
const PAPER: Pixel = [0x12, 0x12, 0x12];
const LETTERS: Pixel = [0xd8, 0xd8, 0xd8];
/// 0 to 15, as xterm has them.
const OWN: [Pixel; 16] = [
    [0x00, 0x00, 0x00],
    [0xcd, 0x00, 0x00],
    [0x00, 0xcd, 0x00],
    [0xcd, 0xcd, 0x00],
    [0x1e, 0x66, 0xee],
    [0xcd, 0x00, 0xcd],
    [0x00, 0xcd, 0xcd],
    [0xe5, 0xe5, 0xe5],
    [0x7f, 0x7f, 0x7f],
    [0xff, 0x00, 0x00],
    [0x00, 0xff, 0x00],
    [0xff, 0xff, 0x00],
    [0x5c, 0x8c, 0xff],
    [0xff, 0x00, 0xff],
    [0x00, 0xff, 0xff],
    [0xff, 0xff, 0xff],
];

/// Writes what was seen at this moment since the recording began, or at its end if that is before. The picture says in a text
/// of its own (`Comment`) whose session it is of, and of when.
pub fn png(film: &mut Film, moment: Duration, out: &mut dyn Write) -> Result<(), ExportError> {
    while !film.towards(moment, usize::MAX)? {}
    let stage = film.stage();
    let picture = stage.picture().unwrap_or_else(|| Picture::of_lines(stage.lines()));
    let comment = format!("{}, at {:.3} s", title(film.header()), film.at().as_secs_f64());
    draw(&picture, comment, out).map_err(|error| ExportError::Write(io::Error::from(error)))?;
    Ok(out.flush()?)
}

fn draw(picture: &Picture, comment: String, out: &mut dyn Write) -> Result<(), png::EncodingError> {
    let side = |cells: usize, pixels: usize| u32::try_from(cells * pixels).unwrap_or(u32::MAX);
    let mut encoder = Encoder::new(out, side(picture.columns(), WIDTH), side(picture.rows().len(), HEIGHT));
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.add_itxt_chunk("Comment".to_owned(), comment)?;
    let mut writer = encoder.write_header()?;
    let mut pixels = writer.stream_writer()?;
    let mut font = Font::default();
    let mut line = Vec::with_capacity(picture.columns() * WIDTH * 3);
    for (row, glyphs) in picture.rows().iter().enumerate() {
        let cursor = picture.cursor().filter(|(_, of)| *of == row).map(|(column, _)| column);
        for y in 0..HEIGHT {
            line.clear();
            for (column, glyph) in glyphs.iter().enumerate() {
                // The right half of a wide character is the paper of its own.
                let inverse = glyph.look.inverse != (cursor == Some(column));
                font.line_of(glyph, y, inverse, &mut line);
            }
            line.resize(picture.columns() * WIDTH * 3, 0);
            pixels.write_all(&line)?;
        }
    }
    pixels.finish()
}

/// Bitmaps of characters that were drawn already, the leftmost pixel in the highest bit.
#[derive(Default)]
struct Font(HashMap<char, [u16; HEIGHT]>);

impl Font {
    /// One line of pixels of a cell.
    fn line_of(&mut self, glyph: &Glyph, y: usize, inverse: bool, line: &mut Vec<u8>) {
        let (mut ink, mut paper) = colours(&glyph.look);
        if inverse {
            (ink, paper) = (paper, ink);
        }
        let drawn = *self.0.entry(glyph.character).or_insert_with(|| bitmap(glyph.character));
        let mut bits = drawn.get(y).copied().unwrap_or_default();
        if glyph.width == 0 {
            bits = 0;
        }
        if glyph.look.bold {
            bits |= bits >> 1;
        }
        if (glyph.look.underline && y == UNDERLINE) || (glyph.look.strikethrough && y == STRIKE) {
            bits = u16::MAX;
        }
        for x in 0..WIDTH {
            line.extend_from_slice(if bits & (0x8000 >> x) == 0 { &paper } else { &ink });
        }
    }
}

fn bitmap(character: char) -> [u16; HEIGHT] {
    let mut drawn = [0; HEIGHT];
    match glyph_of(character) {
        Some(glyph) => {
            for (bits, row) in drawn.iter_mut().zip(glyph.chunks_exact(2)) {
                *bits = row.iter().fold(0, |bits, byte| bits << 8 | u16::from(*byte));
            }
        }
        // An empty frame.
        None => {
            for (y, bits) in (0..).zip(&mut drawn) {
                *bits = match y {
                    4 | 20 => 0x7fe0,
                    5..20 => 0x4020,
                    _ => 0,
                };
            }
        }
    }
    drawn
}

/// Two bytes for each line, of the font's own table of characters (PSF2: the header says where the glyphs are and how many of which size;
/// behind them is a record for each, the characters that look so, then 0xff). The crate's own search finds only the first of a record,
/// and one line is that of fifteen characters.
fn glyph_of(character: char) -> Option<&'static [u8]> {
    let figure = |at: usize| -> Option<usize> {
        let bytes = FONT_12X24.get(at..at + 4)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let (head, count, size) = (figure(8)?, figure(16)?, figure(20)?);
    let (glyphs, table) = FONT_12X24.get(head..)?.split_at_checked(count * size)?;
    let looks_so = |record: &[u8]| {
        let alone = record.split(|byte| *byte == 0xfe).next().unwrap_or_default();
        str::from_utf8(alone).is_ok_and(|all| all.contains(character))
    };
    glyphs
        .chunks_exact(size)
        .zip(table.split(|byte| *byte == 0xff))
        .find(|(_, record)| looks_so(record))
        .map(|(glyph, _)| glyph)
}

/// Of the character, and behind it.
fn colours(look: &Look) -> (Pixel, Pixel) {
    let paper = look.background.map_or(PAPER, colour);
    let ink = look.foreground.map_or(LETTERS, colour);
    let between = |a: u8, b: u8| a / 2 + b / 2;
    let faint = || [0, 1, 2].map(|n| ink.get(n).zip(paper.get(n)).map_or(0, |(a, b)| between(*a, *b)));
    (if look.faint { faint() } else { ink }, paper)
}

fn colour(ink: Ink) -> Pixel {
    // Of xterm's cube, each side has six steps.
    let step = |n: u8| if n == 0 { 0 } else { 55 + 40 * n };
    match ink {
        Ink::Rgb(red, green, blue) => [red, green, blue],
        Ink::Indexed(index @ 0..16) => OWN.get(usize::from(index)).copied().unwrap_or(LETTERS),
        Ink::Indexed(index @ 16..232) => {
            let index = index - 16;
            [step(index / 36), step(index / 6 % 6), step(index % 6)]
        }
        Ink::Indexed(index) => [8 + 10 * (index - 232); 3],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use avt::Terminal;

    fn pixels(text: &str) -> (usize, Vec<u8>) {
        let mut terminal = Terminal::new(20, 5).unwrap();
        terminal.feed(text);
        let mut out = Vec::new();
        draw(&Picture::of(&terminal), "of a test".to_owned(), &mut out).unwrap();
        let mut reader = png::Decoder::new(io::Cursor::new(out)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((frame.width, frame.height), (240, 120));
        (usize::try_from(frame.width).unwrap(), pixels)
    }

    /// The cell as hashes where there is ink.
    fn cell(pixels: &(usize, Vec<u8>), column: usize) -> String {
        let pixel = |x: usize, y: usize| {
            let at = (y * pixels.0 + column * WIDTH + x) * 3;
            if pixels.1[at..at + 3] == PAPER { '.' } else { '#' }
        };
        (0..HEIGHT).map(|y| (0..WIDTH).map(|x| pixel(x, y)).collect::<String>() + "\n").collect()
    }

    #[test]
    fn characters_are_drawn_and_those_that_the_font_lacks_are_frames() {
        let drawn = pixels("L\u{2500}\u{754c}\u{2588} \x1b[31mr\x1b[0m\x1b[5;1H");
        let letter = cell(&drawn, 0);
        let rows: Vec<&str> = letter.lines().collect();
        let stem = rows.iter().filter(|row| row.contains('#')).count();
        assert!((10..=20).contains(&stem), "{letter}");
        assert!(rows.iter().any(|row| row.matches('#').count() >= 6), "the foot of an L: {letter}");
        assert!(cell(&drawn, 1).contains("############"), "a line from side to side: {}", cell(&drawn, 1));
        assert!(cell(&drawn, 2).contains(".##########."), "a frame: {}", cell(&drawn, 2));
        assert!(!cell(&drawn, 3).contains('#'), "the right half of it");
        assert_eq!(cell(&drawn, 4), "############\n".repeat(HEIGHT), "a whole block");
        assert!(!cell(&drawn, 5).contains('#'));
        let red = drawn.1.chunks(3).any(|pixel| pixel == OWN[1]);
        assert!(red && cell(&drawn, 6).contains('#'));
    }

    #[test]
    fn every_colour_of_the_palette_is_one() {
        assert_eq!(colour(Ink::Indexed(16)), [0, 0, 0]);
        assert_eq!(colour(Ink::Indexed(231)), [255, 255, 255]);
        assert_eq!(colour(Ink::Indexed(255)), [238, 238, 238]);
        assert_eq!(colour(Ink::Indexed(9)), [255, 0, 0]);
    }
}
